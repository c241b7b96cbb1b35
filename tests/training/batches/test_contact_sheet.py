"""A contact sheet of images and their augmented views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from api_schemas.data_config import AugmentationConfig
from api_schemas.preprocessing import ImageInput
from common.errors import InputError
from encoder.inputs.image_input import ImagePreprocessing
from tests.training.runs import build_rule
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.batches.contact_sheet import GAP, LINE, draw_contact_sheet
from training.data.items import Items

ITEMS = Items(
    np.random.default_rng(0).integers(0, 256, (2, 3, 50, 60), dtype=np.uint8),
    np.array(["cats/tabby", "ö"]),
    np.array(["cats/tabby/1.jpg", "2.jpg"]),
)


def cut_cell(sheet: np.ndarray, row: int, column: int) -> np.ndarray:
    """Pixels [3, 50, 60] of a cell, which shows each pixel as 2 x 2."""
    top, left = LINE + row * (LINE + 100 + GAP) + LINE, GAP + column * (120 + GAP)
    cell = sheet[top : top + 100, left : left + 120]
    np.testing.assert_array_equal(cell[::2, ::2], cell[1::2, 1::2])
    return cell[::2, ::2].transpose(2, 0, 1)


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_the_image_as_it_is_stored_lies_beside_its_views(order: str) -> None:
    rule = ImageInput(
        mode="RGB",
        height=50,
        width=60,
        order=order,
        mean=[0.5, 0.4, 0.3],
        std=[0.2, 0.3, 0.1],  # type: ignore[arg-type]
    )
    preprocessing, settings = ImagePreprocessing(rule), AugmentationConfig(shift=0.2, colour=0.3)
    sheet = np.asarray(draw_contact_sheet(ITEMS, preprocessing, settings, views=2))
    assert sheet.shape == (LINE + 2 * (LINE + 100 + GAP), GAP + 3 * (120 + GAP), 3)
    towards_rgb = slice(None, None, 1 if order == "RGB" else -1)
    inputs = TrainingInputs(ITEMS, DeviceInputs(preprocessing, torch.device("cpu")), settings)
    mean, std = preprocessing.normalisation
    for row in range(2):
        np.testing.assert_array_equal(cut_cell(sheet, row, 0), ITEMS.inputs[row][towards_rgb])
        for view in range(2):
            shown = inputs(np.arange(2), torch.Generator().manual_seed(view))[row].numpy()
            wanted = ((shown * std + mean) * 255).clip(0, 255).round()
            np.testing.assert_array_equal(cut_cell(sheet, row, 1 + view), wanted[towards_rgb])
    text = sheet[LINE : 2 * LINE]
    assert (text < 128).any(), "the class's name"


def test_forms_that_are_classes_take_turns_and_others_are_no_images() -> None:
    items = Items(ITEMS.inputs[:, :1, :, :50], ITEMS.labels, ITEMS.ids)
    settings = AugmentationConfig(mirrors_as_classes=True)
    sheet = np.asarray(draw_contact_sheet(items, build_rule((1, 50, 50)), settings, views=2))
    cells = [sheet[2 * LINE : 2 * LINE + 100, GAP + k * 106 : GAP + k * 106 + 100] for k in range(3)]
    np.testing.assert_array_equal(cells[0], cells[1])
    np.testing.assert_array_equal(cells[2], cells[0][:, ::-1])
    assert not np.array_equal(cells[1], cells[2])
    with pytest.raises(InputError, match="shows images, these are table inputs"):
        draw_contact_sheet(items, build_rule((4,)), settings, views=2)
