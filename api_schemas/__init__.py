"""Schemas of all documents: configuration, manifest, operating point, report and HTTP bodies."""
