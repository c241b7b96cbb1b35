"""An ONNX file from anywhere: checked before it is loaded, and what it takes and answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onnxruntime import InferenceSession

from common.errors import BundleError, InputError, needs
from encoder.network import open_session
from encoder.onnx_files import list_external_files

MOST_BYTES = 2 << 30  # of a network with all its weights: what one ONNX file can hold
_OPSET = re.compile(r"Opset (\d+) is under development.*?till opset (\d+)", re.DOTALL)
_SOURCE = re.compile(r"^/\S+\.(?:cc|h):\d+ .*?\) (?=[A-Z])")  # file and function of its own code
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:\s*)?")
EXPORT_OPSET = 17  # that every onnxruntime in use takes


@dataclass(frozen=True)
class Node:
    """An input or output; ``dims`` are sizes, None where they are free."""

    name: str
    dtype: str
    dims: tuple[int | None, ...]

    def describe(self) -> str:
        """Name, type and shape in words."""
        sizes = ", ".join("?" if size is None else str(size) for size in self.dims)
        return f"'{self.name}' {self.dtype.removeprefix('tensor(').rstrip(')')} [{sizes}]"


@dataclass(frozen=True)
class NetworkFile:
    """A network that ONNX Runtime takes.

    Attributes:
        name: how messages call it.
    """

    name: str
    session: InferenceSession
    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]


def list_nodes(nodes: Sequence[Node]) -> str:
    """Inputs or outputs in words."""
    return ", ".join(node.describe() for node in nodes)


def copy_network(source: Path, target: Path) -> None:
    """Check an ONNX file and write it, with its weights inside, as ``target``; nothing of it is run.

    Raises:
        InputError: no ONNX file, too large, or with weights in files outside its folder, which are not
            opened.
        MissingExtra: its weights lie in other files, and the package that reads them is not installed.
    """
    if not source.is_file():
        raise InputError(f"{source} is not a file: give an ONNX file.")
    _check_bytes(source, source.stat().st_size)
    with source.open("rb") as opened:
        if opened.read(2) == b"PK":
            raise InputError(
                f"{source} is a zip archive, as torch.save writes them, and no ONNX file: export the network "
                f"with torch.onnx.export(..., opset_version={EXPORT_OPSET}) first."
            )
    try:
        external = list_external_files(source)
    except BundleError:
        raise _build_no_onnx(source) from None
    if not external:
        with source.open("rb") as opened, target.open("wb") as copy:
            while block := opened.read(1 << 20):
                copy.write(block)
        return
    _check_external(source, external)
    with needs("an ONNX file with its weights in other files", "wrap"):
        import onnx
    try:
        model = onnx.load(source, load_external_data=True)
        onnx.save(model, target)
    except Exception as error:  # onnx raises whatever it likes on damaged files
        raise InputError(f"{source} cannot be read with its weights: {explain_failure(error)}.") from None


def open_network(path: Path, name: str, threads: int = 0) -> NetworkFile:
    """Load a network that ``copy_network`` wrote; raises InputError naming ``name`` where it cannot be."""
    try:
        session = open_session(path, threads)
    except Exception as error:  # ONNX Runtime's exceptions have no common base
        if found := _OPSET.search(str(error)):
            raise InputError(
                f"{name} needs opset {found[1]}, this ONNX Runtime takes up to {found[2]}: export it again "
                f"with opset_version={EXPORT_OPSET}."
            ) from None
        if "Protobuf parsing failed" in str(error) or "INVALID_PROTOBUF" in str(error):
            raise _build_no_onnx(Path(name)) from None
        raise InputError(f"{name} cannot be loaded by ONNX Runtime: {explain_failure(error)}.") from None
    return NetworkFile(
        name,
        session,
        tuple(_read_node(node) for node in session.get_inputs()),
        tuple(_read_node(node) for node in session.get_outputs()),
    )


def explain_failure(error: Exception) -> str:
    """The first line of what ONNX Runtime says, without its own names for where it says it."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = _PREFIX.sub("", lines[0]) if lines else type(error).__name__
    return _SOURCE.sub("", text.rsplit("Status Message: ", 1)[-1]).rstrip(".")


def _read_node(node: Any) -> Node:
    dims = tuple(size if isinstance(size, int) and size > 0 else None for size in node.shape or ())
    return Node(node.name, node.type, dims)


def _check_bytes(source: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(
            f"{source} has {size:,} bytes with its weights, at most {MOST_BYTES:,} are taken: save it with "
            "16-bit or 8-bit weights."
        )


def _check_external(source: Path, names: Sequence[str]) -> None:
    """Raises InputError for weights in a file that does not lie in the folder of the network."""
    folder, total = source.resolve().parent, source.stat().st_size
    for name in names:
        is_plain = name and not PurePosixPath(name).is_absolute() and "\\" not in name and "\0" not in name
        path = (folder / name).resolve() if is_plain else source
        if not is_plain or not path.is_relative_to(folder):
            raise InputError(
                f"{source} has weights in '{name}', outside its folder, which is not opened: save the "
                "network with its weights in one file (onnx.save(..., save_as_external_data=False))."
            )
        if not path.is_file():
            raise InputError(f"{source} has weights in '{name}', which is missing: put it beside the file.")
        total += path.stat().st_size
        _check_bytes(source, total)


def _build_no_onnx(source: Path) -> InputError:
    return InputError(
        f"{source} is not an ONNX file: export the network with torch.onnx.export(..., "
        f"opset_version={EXPORT_OPSET}), or give another file."
    )
