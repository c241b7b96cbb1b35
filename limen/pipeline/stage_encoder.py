"""An encoder that was made elsewhere, as the files of a bundle: network, preprocessing, tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.preprocessing import NetworkInterface
from api_schemas.wrap_config import EncoderConfig
from common.errors import ConfigError, InputError, needs
from embeddings.hashes import hash_encoder
from encoder.encoder import Encoder
from encoder.network import Network
from encoder.wrapping.fit_network import fit_network
from encoder.wrapping.network_file import NetworkFile, copy_network, list_nodes, open_network
from encoder.wrapping.preprocessing_file import merge_keys, parse_preprocessing, read_preprocessing
from encoder.wrapping.presets import PRESETS
from encoder.wrapping.sentence_transformers import (
    TOKEN_OUTPUTS,
    is_sentence_transformer,
    read_sentence_transformer,
)
from encoder.wrapping.token_table import write_token_table

HUBS = ("hf:", "timm:")
TABLE_SUFFIX = ".safetensors"  # of a token table


@dataclass(frozen=True)
class StagedEncoder:
    """An encoder whose files lie in a folder as a bundle has them.

    Attributes:
        name: how messages call it.
        kind: of its raw inputs.
    """

    folder: Path
    name: str
    encoder: Encoder
    interface: NetworkInterface

    @property
    def model_hash(self) -> str:
        """The hash of network and preprocessing."""
        return hash_encoder(self.folder / ENCODER_FILE, self.folder / PREPROCESSING_FILE)

    def describe(self) -> str:
        """What it takes and answers, in words."""
        preprocessing = self.encoder.preprocessing
        takes = f"{preprocessing.kind}s of {preprocessing.describe_shape()}"
        if preprocessing.has_pieces:
            takes = f"recordings in {preprocessing.describe_shape()}"
        if preprocessing.layout == "tokens":
            takes = f"texts of at most {preprocessing.shape[0]} tokens"
        return (
            f"{Path(self.name).name} takes {takes} as '{self.interface.input}' and answers "
            f"{self.encoder.dim} numbers as '{self.interface.output}'"
        )


def stage_encoder(config: EncoderConfig, folder: Path) -> StagedEncoder:
    """Write the encoder's files to a folder and load it from there.

    Raises:
        InputError: an encoder that cannot be used, in one sentence. ConfigError: preprocessing that leaves
            open what must be said.
    """
    given, source = read_preprocessing(config.preprocessing)
    is_table = Path(config.path).suffix == TABLE_SUFFIX
    named = {"input": None if is_table else config.input, "output": config.output}
    if named := {key: name for key, name in named.items() if name is not None}:
        given = merge_keys(given, {"network": named})
    target = folder / ENCODER_FILE
    found = _write_network(config, target)
    network = open_network(target, config.path)
    keys = merge_keys(found, given)
    if not keys.keys() - {"network"}:
        keys |= _guess_keys(network)
    if found:
        keys = _choose_token_output(keys, network)
    preprocessing, interface = fit_network(parse_preprocessing(keys, source), network)
    preprocessing.save(folder / PREPROCESSING_FILE, interface)
    encoder = Encoder(Network(network.session, preprocessing, interface), preprocessing)
    return StagedEncoder(folder, config.path, encoder, interface)


def _write_network(config: EncoderConfig, target: Path) -> dict[str, Any]:
    """Write the network of a path; the keys of preprocessing that are known with it."""
    path, source = config.path, Path(config.path)
    if path.startswith(HUBS):
        return _export(path, target)
    if source.is_dir():
        if not is_sentence_transformer(source):
            raise InputError(
                f"{path} is a folder without modules.json: give an ONNX file, a folder that "
                f"sentence-transformers wrote, or hf:{path} for one of transformers."
            )
        model = read_sentence_transformer(source)
        if model.network is None:
            return merge_keys(_export(f"hf:{path}", target), model.preprocessing)
        if model.network.suffix == TABLE_SUFFIX:
            write_token_table(model.network, target)
        else:
            copy_network(model.network, target)
        return model.preprocessing
    if source.suffix == TABLE_SUFFIX:
        write_token_table(source, target, config.input)
        return {"preset": "static"}
    copy_network(source, target)
    return {}


def _export(source: str, target: Path) -> dict[str, Any]:
    with needs(f"an encoder from {source.partition(':')[0]}:", "train"):
        from training.export.pretrained import export_pretrained
    keys: dict[str, Any] = export_pretrained(source, target)
    return keys


def _guess_keys(network: NetworkFile) -> dict[str, Any]:
    """Vectors need no further word; raises ConfigError for all else."""
    if len(network.inputs) == 1 and len(network.inputs[0].dims) == 2:
        return {"kind": "vector"}
    raise ConfigError(
        f"{network.name} takes {list_nodes(network.inputs)}: say how inputs become that with "
        f"--preprocessing, a YAML file or a preset ({', '.join(PRESETS)})."
    )


def _choose_token_output(keys: dict[str, Any], network: NetworkFile) -> dict[str, Any]:
    """The output of token vectors where the folder says how these are pooled, and no output was named."""
    names = {node.name for node in network.outputs}
    output = next((name for name in TOKEN_OUTPUTS if name in names), None)
    return keys if output is None else merge_keys({"network": {"output": output}}, keys)
