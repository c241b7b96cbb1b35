"""Problem documents (RFC 9457) and the sentences of validation errors."""
