"""Several galleries in one service: their settings, and which of them a request is for."""
