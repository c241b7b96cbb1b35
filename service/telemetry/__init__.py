"""Logs, audit log, Prometheus metrics."""
