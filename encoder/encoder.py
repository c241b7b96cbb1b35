"""Raw input to unit vector at serving time: preprocessing and ONNX Runtime, no torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.preprocessing import PreprocessingDocument, Provider
from common.array_types import Float32s
from common.errors import BundleError
from common.time_budget import check_time
from encoder.inputs import find_files, load_preprocessing
from encoder.inputs.preprocessing import LIMITS, InputLimits, Preprocessing, RawInput, RefusedInput
from encoder.network import Network, open_session
from encoder.onnx_files import list_external_files
from encoder.providers import place_network

# intermediate activations grow with the batch; more rows at once are no faster on a CPU
BATCH = 64


class Encoder:
    """An exported network with its preprocessing. Safe to call from several threads at once.

    Attributes:
        preprocessing: the rule from raw input to the network's input.
        network: how it is run.
        provider: where it is computed; ``provider_note`` says why not where that was wanted, or is None.
        dim: length of a vector.
        limits: of the raw inputs; larger ones are refused.
        queries: the encoder of queries: itself, unless these have a tower of their own.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        limits: InputLimits = LIMITS,
        provider: Provider = "cpu",
        provider_note: str | None = None,
        query_output: str | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.provider, self.provider_note = provider, provider_note
        self.network = network
        self.limits = limits
        output = network.run(np.ones((1, *preprocessing.shape), dtype=np.float32))
        if output.ndim != 2:
            raise BundleError(f"{ENCODER_FILE} must answer rows of vectors, it answers shape {output.shape}.")
        self.dim = int(output.shape[1])
        self.queries = self
        if query_output is not None:
            tower = network.read_output(query_output)
            self.queries = Encoder(tower, preprocessing, limits, provider, provider_note)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        threads: int = 1,
        limits: InputLimits = LIMITS,
        listed: Collection[str] | None = None,
        provider: Provider = "cpu",
    ) -> Encoder:
        """Load ``encoder.onnx`` and ``preprocessing.json`` of a folder.

        Args:
            folder: a bundle, or what training's export wrote.
            threads: threads one call may compute with.
            limits: of the raw inputs; larger ones are refused.
            listed: of a bundle, the names of the encoder's files: no other is opened.
            provider: where to compute; the CPU does where it is not there or makes other vectors.

        Raises:
            BundleError: a file that is missing, not listed, or that ONNX Runtime does not take.
        """
        if listed is not None:
            _check_listed(folder, listed)
        preprocessing = load_preprocessing(folder / PREPROCESSING_FILE)
        document = PreprocessingDocument.load(folder / PREPROCESSING_FILE)
        interface = document.network
        try:
            open_file = partial(open_session, folder / ENCODER_FILE, threads)
            build = partial(Network, preprocessing=preprocessing, interface=interface)
            placed = place_network(build(open_file()), provider, open_file, build, preprocessing)
            queries = document.query_output
            return cls(placed.network, preprocessing, limits, placed.provider, placed.note, queries)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{folder / ENCODER_FILE} cannot be loaded: {reason}.") from None

    def encode(self, inputs: Sequence[RawInput]) -> Float32s:
        """Embed raw inputs.

        Args:
            inputs: base64 data URIs, file bytes or PIL images; texts; or rows of numbers: its kind decides.

        Returns:
            float32 [n, dim], unit rows.

        Raises:
            RefusedInput: an input of the wrong kind, broken or too large, or one whose vector has no
                direction; names its number.
        """
        parts = []
        for start in range(0, len(inputs), BATCH):
            check_time()
            prepared = self.preprocessing.prepare(inputs[start : start + BATCH], start, self.limits)
            parts.append(self.embed(prepared, start))
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def embed(self, prepared: Float32s, first: int = 0) -> Float32s:
        """The network's answer to prepared inputs [n, *shape]: float32 [n, dim], unit rows."""
        output = self.network.run(prepared)
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        broken = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 1e-12)))
        if len(broken):
            raise RefusedInput(
                first + int(broken[0]), "the encoder's answer to it has no direction (NaN or zero)."
            )
        return np.asarray(output / lengths, np.float32)


def _check_listed(folder: Path, listed: Collection[str]) -> None:
    """Raises BundleError if the encoder needs a file that the bundle does not name among its files."""
    for name in (ENCODER_FILE, PREPROCESSING_FILE):
        if name not in listed:
            raise BundleError(f"{folder}: the manifest does not name {name} as a file of the encoder.")
    needed = [*find_files(folder / PREPROCESSING_FILE), *list_external_files(folder / ENCODER_FILE)]
    unlisted = [name for name in needed if name not in listed]
    if unlisted:
        raise BundleError(
            f"{folder}: the encoder needs {', '.join(unlisted)}, which the manifest does not name among its "
            "files: export it again, with its weights in one file."
        )
