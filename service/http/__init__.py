"""Middleware, request bodies, query resolution, fast routes, the OpenAPI document."""
