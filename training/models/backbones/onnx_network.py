"""An encoder in an ONNX file as a frozen backbone, computed by ONNX Runtime: a head is trained on it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from api_schemas.manifest import ENCODER_FILE, PREPROCESSING_FILE
from api_schemas.preprocessing import NetworkInterface, PreprocessingDocument
from common.errors import ConfigError
from embeddings.hashes import hash_encoder
from encoder.encoder import BATCH
from encoder.inputs import find_files, load_preprocessing
from encoder.network import Network, open_session
from encoder.wrapping.join_head import join_head
from training.models.backbones.backbone import Backbone, Shape

ONNX = "onnx:"


class OnnxNetwork(Backbone):
    """``onnx:FOLDER``: a bundle, a run's ``encoder`` folder, or what ``limen wrap`` made.

    Its own preprocessing is that of the data. No gradients pass through it, so that ``train`` is ``head``.

    Attributes:
        folder: of the encoder's files. interface: how it is fed and read.
    """

    layouts = frozenset(("map", "row", "tokens", "ngrams"))
    is_differentiable = False

    def __init__(self, input_shape: Shape, source: str) -> None:
        super().__init__()
        self.folder = Path(source)
        check_encoder_folder(source)
        preprocessing = load_preprocessing(self.folder / PREPROCESSING_FILE)
        given = PreprocessingDocument.load(self.folder / PREPROCESSING_FILE).network
        session = open_session(self.folder / ENCODER_FILE, torch.get_num_threads())
        self.interface = given or NetworkInterface(
            input=session.get_inputs()[0].name, output=session.get_outputs()[0].name
        )
        self._network = Network(session, preprocessing, given)
        shapes = {node.name: node.shape for node in session.get_outputs()}
        self._output_ndim = len(shapes[self.interface.output])
        sample = self._network.run(np.ones((1, *preprocessing.shape), dtype=np.float32))
        self.feature_shape = (int(sample.shape[1]),)

    def forward(self, inputs: Tensor) -> Tensor:
        """[n, *input shape] to [n, d], as the encoder answers it: of any length."""
        rows = inputs.detach().cpu().numpy()
        parts = [self._network.run(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
        return torch.from_numpy(np.concatenate(parts)).float().to(inputs.device)

    def describe(self) -> str:
        """The hash of network and preprocessing."""
        return hash_encoder(self.folder / ENCODER_FILE, self.folder / PREPROCESSING_FILE)

    def save_shape(self, folder: Path) -> None:
        """The encoder's own files, so that the run does not depend on where they came from."""
        folder.mkdir(exist_ok=True)
        names = (ENCODER_FILE, PREPROCESSING_FILE, *find_files(self.folder / PREPROCESSING_FILE))
        for name in names:
            if folder.resolve() != self.folder.resolve():
                shutil.copyfile(self.folder / name, folder / name)

    def join_head(self, head: nn.Module) -> tuple[bytes, NetworkInterface]:
        """The encoder's ONNX file with a linear head behind it, and how the whole is fed and read."""
        assert isinstance(head, nn.Linear), "a frozen network has a head, which is all that is trained"
        weight, bias = head.weight.detach().cpu().numpy(), head.bias.detach().cpu().numpy()
        return join_head(self.folder / ENCODER_FILE, self.interface, self._output_ndim, weight, bias)

    def __deepcopy__(self, memo: dict[int, object]) -> OnnxNetwork:
        """Itself: nothing in it changes, and a session cannot be copied."""
        return self


def check_encoder_folder(source: str) -> None:
    """Raises ConfigError for a folder without an encoder."""
    for name in (ENCODER_FILE, PREPROCESSING_FILE):
        if not (Path(source) / name).is_file():
            raise ConfigError(
                f"model.backbone: {ONNX}{source} has no {name}: give a bundle, which `limen wrap` makes of "
                "an ONNX file, or the encoder folder of a run."
            )
