"""API keys that are kept in the database which several processes share, instead of in a file."""

from __future__ import annotations

from common.errors import InputError
from index.store.shared.records import SharedRecords
from service.auth.api_keys import ApiKey, KeyFile, Scope, make_key
from service.auth.key_limits import KeyLimits

SETTING = "keys"


def read_shared_keys(shared: SharedRecords) -> list[ApiKey] | None:
    """The keys in the database; None where none were ever made, which is another thing than none left."""
    document = shared.read_setting(SETTING)
    return None if document is None else KeyFile.model_validate_json(document).keys


def create_shared_key(shared: SharedRecords, name: str, scope: Scope, limits: KeyLimits | None = None) -> str:
    """Add a key and return its secret, which cannot be read back later."""
    secret, added = make_key(name, scope, limits)
    shared.edit_setting(SETTING, lambda known: _write([*_read(known), added]), "keys")
    return secret


def revoke_shared_keys(shared: SharedRecords, name: str) -> int:
    """Remove all keys of a name and return how many; raises InputError if there are none."""
    removed = 0

    def remove(document: str | None) -> str:
        nonlocal removed
        known = _read(document)
        kept = [key for key in known if key.name != name]
        removed = len(known) - len(kept)
        if not removed:
            names = sorted({key.name for key in known})
            raise InputError(f"The database holds no key named '{name}'; it holds {names}.")
        return _write(kept)

    shared.edit_setting(SETTING, remove, "keys")
    return removed


def _read(document: str | None) -> list[ApiKey]:
    return [] if document is None else KeyFile.model_validate_json(document).keys


def _write(keys: list[ApiKey]) -> str:
    return KeyFile(keys=keys).to_json()
