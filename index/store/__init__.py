"""The item store: items, documents and service records in a database."""
