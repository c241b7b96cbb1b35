"""API keys and signed decision tokens."""
