"""HTTP: decisions, reports and the dashboard."""

from importlib.metadata import version

VERSION = version("limen")
