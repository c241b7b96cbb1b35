"""Items as a network is shown them while it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from api_schemas.data_config import AugmentationConfig
from tests.training.runs import MakeConfig, build_rule
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.data.items import Items
from training.data.load_data import load_data


def test_every_form_of_an_item_is_a_class_of_its_own() -> None:
    drawn = np.random.default_rng(0).integers(0, 255, size=(3, 1, 6, 6)).astype(np.uint8)
    items = Items(drawn, np.array(["b", "a", "b"]), np.array(["0", "1", "2"]))
    prepare = DeviceInputs(build_rule((1, 6, 6)), torch.device("cpu"))
    for rotations, mirrors in ((False, False), (True, False), (False, True), (True, True)):
        augmentation = AugmentationConfig(rotations_as_classes=rotations, mirrors_as_classes=mirrors)
        inputs = TrainingInputs(items, prepare, augmentation)
        wanted = [
            (code, np.rot90(image[0], quarter)[:, :: -1 if mirror else 1])
            for code, image in zip((1, 0, 1), drawn, strict=True)
            for mirror in range(1 + mirrors)
            for quarter in range(1 + 3 * rotations)
        ]
        rows = np.arange(len(inputs.codes))
        assert len(rows) == len(wanted)
        shown = inputs(rows, torch.Generator())
        for row, (code, image) in enumerate(wanted):
            assert inputs.codes[row] // inputs.forms == code
            assert inputs.codes[row] % inputs.forms == row % inputs.forms
            expected = prepare(np.ascontiguousarray(image)[None, None])[0]
            torch.testing.assert_close(shown[row], expected)


def test_training_and_serving_prepare_alike(drawings: Path, small: MakeConfig) -> None:
    import torch

    from training.batches.batch_inputs import DeviceInputs

    splits = load_data(small().data)
    prepared = DeviceInputs(splits.preprocessing, torch.device("cpu"))(splits.train.inputs[:4]).numpy()
    raw = [Image.open(drawings / str(name)) for name in splits.train.ids[:4]]
    served = splits.preprocessing.prepare(raw)
    np.testing.assert_allclose(prepared, served, atol=1e-6)
