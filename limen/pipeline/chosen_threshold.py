"""A threshold that somebody has already, as the options of a command or arguments say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from api_schemas.report import DistanceKind
from common.errors import ConfigError
from decision.targets import ENDPOINTS, Endpoint


@dataclass(frozen=True)
class ChosenThreshold:
    """A threshold of a distance; ``decides`` is the endpoint of its point, None for the usual one."""

    value: float
    distance: DistanceKind
    decides: Endpoint | None


def parse_chosen_threshold(value: float, distance: str, decides: str | None = None) -> ChosenThreshold:
    """Checked; raises ConfigError for another distance or endpoint than there are."""
    kinds: tuple[DistanceKind, ...] = get_args(DistanceKind)
    kind = next((kind for kind in kinds if kind == distance), None)
    if kind is None:
        raise ConfigError(f"the distance is one of {', '.join(kinds)}, found '{distance}'.")
    endpoint = next((endpoint for endpoint in ENDPOINTS if endpoint == decides), None)
    if decides is not None and endpoint is None:
        raise ConfigError(f"a threshold decides {' or '.join(ENDPOINTS)}, found '{decides}'.")
    return ChosenThreshold(value, kind, endpoint)
