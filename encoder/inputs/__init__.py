"""The input kinds by the name in ``preprocessing.json``; a new one is one file and one line here."""

from __future__ import annotations

from pathlib import Path

from api_schemas.preprocessing import PreprocessingDocument
from encoder.inputs.audio_input import AudioPreprocessing
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from encoder.inputs.row_input import TablePreprocessing, VectorPreprocessing
from encoder.inputs.text_input import NgramPreprocessing, TokenPreprocessing

INPUT_KINDS: dict[str, type[Preprocessing]] = {
    "audio": AudioPreprocessing,
    "image": ImagePreprocessing,
    "table": TablePreprocessing,
    "text": NgramPreprocessing,
    "tokens": TokenPreprocessing,
    "vector": VectorPreprocessing,
}


def find_files(path: Path) -> tuple[str, ...]:
    """Names of the files that the rule in ``preprocessing.json`` needs beside it."""
    return INPUT_KINDS[PreprocessingDocument.load(path).input.kind].files


def load_preprocessing(path: Path) -> Preprocessing:
    """Read and check ``preprocessing.json`` and what its rule needs beside it.

    Raises:
        InputError: names the file and the key.
        BundleError: the tokenizer is missing or another.
    """
    rule = PreprocessingDocument.load(path).input
    return INPUT_KINDS[rule.kind].open(rule, path.parent)
