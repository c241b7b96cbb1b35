"""Items and service records in SQLite or PostgreSQL."""
