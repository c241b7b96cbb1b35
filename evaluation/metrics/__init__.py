"""Figures of a report: retrieval, verification, identification, OPIS."""
