"""The service from Python: synchronous and asynchronous clients, and what they return and raise."""

from api_schemas.http.binary_search import SearchArrays
from limen.client.client import AsyncClient, Client, ServiceError, ServiceUnreachable

__all__ = ["AsyncClient", "Client", "SearchArrays", "ServiceError", "ServiceUnreachable"]
