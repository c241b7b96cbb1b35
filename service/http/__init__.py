"""Requests and responses: bodies, middleware, OpenAPI, fast routes."""
