"""Problem documents (RFC 9457) and the words of validation errors."""
