"""The pages of the dashboard, in the order of their navigation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NavigationEntry:
    """A page: ``name`` is its file in ``service.routers.pages``, ``path`` its address."""

    name: str
    path: str
    title: str


# a new page is a file there, a template and a line here
PAGES = (
    NavigationEntry("overview", "/dashboard", "Overview"),
    NavigationEntry("threshold", "/dashboard/threshold", "Threshold"),
    NavigationEntry("classes", "/dashboard/classes", "Classes"),
    NavigationEntry("try_it", "/dashboard/try", "Try it"),
    NavigationEntry("live", "/dashboard/live", "Live"),
    NavigationEntry("unknowns", "/dashboard/unknowns", "Unknowns"),
    NavigationEntry("review", "/dashboard/review", "Review"),
    NavigationEntry("models", "/dashboard/models", "Models"),
    NavigationEntry("reports", "/dashboard/reports", "Reports"),
    NavigationEntry("labels", "/dashboard/labels", "Labels"),
)
