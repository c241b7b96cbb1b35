"""Milvus: a server, or a cluster of them, that holds the vectors of a generation and proposes candidates."""
