"""Raw input to unit vector at serving time: preprocessing and ONNX Runtime, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from common.array_types import Float32s
from common.errors import BundleError
from encoder.images import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, image_from_bytes, image_from_text
from encoder.preprocessing import PREPROCESSING_FILE, Preprocessing
from encoder.refused_input import RefusedInput

ENCODER_FILE = "encoder.onnx"
# intermediate activations grow with the batch; more rows at once are no faster on a CPU
BATCH = 64

EncoderInput = str | bytes | Image.Image | Sequence[float] | NDArray[Any]


class Encoder:
    """An exported network. Safe to call from several threads at once.

    Attributes:
        preprocessing: the rule from raw input to the network's input.
        dim: length of a vector.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        preprocessing: Preprocessing,
        max_image_bytes: int = MAX_IMAGE_BYTES,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        self.preprocessing = preprocessing
        self._session = session
        self._max_bytes, self._max_pixels = max_image_bytes, max_image_pixels
        self._input_name = session.get_inputs()[0].name
        probe = np.zeros((1, *preprocessing.shape), dtype=np.float32)
        output = session.run(None, {self._input_name: probe})[0]
        if output.ndim != 2:
            raise BundleError(f"{ENCODER_FILE} must answer rows of vectors, it answers shape {output.shape}.")
        self.dim = int(output.shape[1])

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        threads: int = 1,
        max_image_bytes: int = MAX_IMAGE_BYTES,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
    ) -> Encoder:
        """Load ``encoder.onnx`` and ``preprocessing.json`` of a folder.

        Args:
            folder: a bundle, or what training's export wrote.
            threads: threads one call may compute with.
            max_image_bytes, max_image_pixels: what is refused above.

        Raises:
            BundleError: a file that is missing or that ONNX Runtime does not take.
        """
        preprocessing = Preprocessing.load(folder / PREPROCESSING_FILE)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # threads that spin while they wait take the cores from everyone else
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = onnxruntime.InferenceSession(
                folder / ENCODER_FILE, options, providers=["CPUExecutionProvider"]
            )
            return cls(session, preprocessing, max_image_bytes, max_image_pixels)
        except BundleError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise BundleError(f"{folder / ENCODER_FILE} cannot be loaded: {reason}.") from None

    @property
    def kind(self) -> Literal["image", "table", "text", "vector"]:
        """What the inputs are."""
        return self.preprocessing.kind

    def encode(self, inputs: Sequence[EncoderInput]) -> Float32s:
        """Embed inputs.

        Args:
            inputs: base64 data URIs, file bytes or PIL images; texts; or rows of numbers: what ``kind`` says.

        Returns:
            float32 [n, dim], unit rows.

        Raises:
            RefusedInput: an input of the wrong kind, broken or too large, or one whose vector has no
                direction; names its number.
        """
        parts = [
            self.embed(self.prepare(inputs[start : start + BATCH], start), start)
            for start in range(0, len(inputs), BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dim), dtype=np.float32)

    def prepare(self, inputs: Sequence[EncoderInput], first: int = 0) -> Float32s:
        """Inputs as the network takes them: float32 [n, *shape]; ``first`` numbers them in errors."""
        if self.kind == "text":
            return np.stack([self._text(one, number) for number, one in enumerate(inputs, first)])
        if self.kind != "image":
            for number, one in enumerate(inputs, first):
                if isinstance(one, str | bytes | Image.Image):
                    raise RefusedInput(
                        number, f"this model takes rows of {self.preprocessing.shape[0]} numbers."
                    )
            return self.preprocessing.rows_array(inputs, first)  # type: ignore[arg-type]
        arrays = [
            self.preprocessing.image_array(self._image(one, number), number)
            for number, one in enumerate(inputs, first)
        ]
        return np.stack(arrays)

    def embed(self, prepared: Float32s, first: int = 0) -> Float32s:
        """The network's answer to prepared inputs [n, *shape]: float32 [n, dim], unit rows."""
        output = np.asarray(self._session.run(None, {self._input_name: prepared})[0], dtype=np.float64)
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        broken = np.flatnonzero(~(np.isfinite(lengths[:, 0]) & (lengths[:, 0] > 1e-12)))
        if len(broken):
            raise RefusedInput(
                first + int(broken[0]), "the encoder's answer to it has no direction (NaN or zero)."
            )
        unit: Float32s = (output / lengths).astype(np.float32)
        return unit

    def _text(self, one: EncoderInput, number: int) -> Float32s:
        if not isinstance(one, str) or not one.strip():
            raise RefusedInput(number, "this model takes texts that are not empty.")
        return self.preprocessing.text_array(one)

    def _image(self, one: EncoderInput, number: int) -> Image.Image:
        if isinstance(one, Image.Image):
            return one
        if isinstance(one, bytes):
            return image_from_bytes(one, self._max_bytes, self._max_pixels, number)
        if isinstance(one, str):
            return image_from_text(one, self._max_bytes, self._max_pixels, number)
        raise RefusedInput(number, "this model takes images, as base64 data URIs.")
