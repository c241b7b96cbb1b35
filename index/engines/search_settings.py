"""How searches are served, whatever the bundle: the environment variable ``LIMEN_RECALL``."""

from __future__ import annotations

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_schemas.base import describe_first_problem
from common.errors import ConfigError


class SearchSettings(BaseSettings):
    """Settings; each is given as ``LIMEN_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="LIMEN_", env_ignore_empty=True, extra="ignore", frozen=True)

    recall: float | None = Field(
        default=None,
        ge=0.5,
        lt=1,
        description="fraction of the ten nearest that searches are to find, where that is more than the "
        "`index.recall` that the bundle was built with: the search then takes the wider beam that was "
        "measured for it",
    )


def load_search_settings() -> SearchSettings:
    """The settings of the environment; raises ConfigError that names the offending one."""
    try:
        return SearchSettings()
    except ValidationError as error:
        where, what = describe_first_problem(error)
        raise ConfigError(f"LIMEN_{where.upper()}: {what}.") from None
