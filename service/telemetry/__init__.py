"""Logs, audit log, Prometheus metrics, drift."""
