"""The data kinds, by the name that ``data.kind`` gives; a new one is one file and one line here."""

from __future__ import annotations

from pathlib import Path

from api_schemas.data_config import DataConfig
from common.progress import Say, silent_say
from training.data.kinds.audio import Audio
from training.data.kinds.builtin import Builtin
from training.data.kinds.data_kind import AnyDataKind
from training.data.kinds.embeddings import Embeddings
from training.data.kinds.images import Images
from training.data.kinds.table import Table
from training.data.kinds.text import Text

DATA_KINDS: dict[str, type[AnyDataKind]] = {
    "images": Images,
    "audio": Audio,
    "table": Table,
    "text": Text,
    "embeddings": Embeddings,
    "builtin": Builtin,
}


def open_kind(data: DataConfig, say: Say = silent_say) -> AnyDataKind:
    """The data kind of a configuration; ``say`` is called with what is found out about files or left out."""
    return DATA_KINDS[data.kind](data, say)


def guess_kind(path: Path) -> str:
    """The kind of data that a path alone suggests: images, unless its suffix is another kind's."""
    return next((name for name, kind in DATA_KINDS.items() if path.suffix in kind.suffixes), "images")
