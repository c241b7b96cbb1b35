"""The address of Milvus: environment variables ``LIMEN_MILVUS_*``.

A bundle does not name a server: where one is belongs to the machine that opens the bundle.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api_schemas.base import describe_first_problem
from common.errors import ConfigError


class MilvusSettings(BaseSettings):
    """Settings; each is given as ``LIMEN_<NAME>``. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix="LIMEN_", env_ignore_empty=True, extra="ignore", frozen=True)

    milvus_uri: str | None = Field(
        default=None,
        pattern=r"^(https?|tcp)://[^\s/]+|^unix:",
        description="address of Milvus, for bundles with `index.kind: milvus` ([scale](scale.md#milvus)): "
        "`http://HOST:19530`, or `https://` for TLS",
    )
    milvus_token: SecretStr | None = Field(
        default=None, description="`USER:PASSWORD`, or an API key of a managed Milvus"
    )
    milvus_database: str = Field(
        default="default", min_length=1, description="database of Milvus that collections are kept in"
    )
    milvus_ca_file: Path | None = Field(
        default=None, description="certificates (PEM) that Milvus' own is checked with; the system's if none"
    )
    milvus_cert_file: Path | None = Field(
        default=None, description="certificate (PEM) to show to Milvus; needs key and `LIMEN_MILVUS_CA_FILE`"
    )
    milvus_key_file: Path | None = Field(default=None, description="key (PEM) of that certificate")
    milvus_timeout: float = Field(
        default=5.0, gt=0, le=600, description="longest search by Milvus, with its retries"
    )

    @model_validator(mode="after")
    def _check_certificates(self) -> MilvusSettings:
        pair = (self.milvus_cert_file, self.milvus_key_file)
        if any(pair) and not (all(pair) and self.milvus_ca_file):
            raise ValueError(
                "milvus_cert_file, milvus_key_file and milvus_ca_file go together: set all three"
            )
        return self


def load_milvus_settings() -> MilvusSettings:
    """The settings of the environment; raises ConfigError that names the offending one."""
    try:
        return MilvusSettings()
    except ValidationError as error:
        where, what = describe_first_problem(error)
        name = "" if where == "(top level)" else f"LIMEN_{where.upper()}: "
        raise ConfigError(f"{name}{what.removeprefix('Value error, ')}.") from None
