"""A contact sheet: images as they are stored for training, beside what augmentation makes of them."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from api_schemas.data_config import AugmentationConfig
from common.array_types import Float32s
from common.errors import InputError
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.batches.batch_inputs import DeviceInputs, TrainingInputs
from training.data.items import Items

LEAST_SIDE = 96  # pixels of a cell; smaller images are enlarged by a whole number
GAP, LINE, FONT_SIZE = 6, 20, 13
FONT = Path("fonts", "ttf", "DejaVuSans.ttf")


def draw_contact_sheet(
    items: Items, preprocessing: Preprocessing, augmentation: AugmentationConfig, views: int, seed: int = 0
) -> Image.Image:
    """A row for each item: the image, then so many views of it; its class and id above.

    Forms that are classes of their own take turns among the views.

    Raises:
        InputError: the items are no images.
    """
    if not isinstance(preprocessing, ImagePreprocessing):
        raise InputError(f"A contact sheet shows images, these are {preprocessing.rule.kind} inputs.")
    inputs = TrainingInputs(items, DeviceInputs(preprocessing, torch.device("cpu")), augmentation)
    columns = [np.asarray(items.inputs[np.arange(len(items))])]
    for view in range(views):
        rows = np.arange(len(items)) * inputs.forms + view % inputs.forms
        drawn = inputs(rows, torch.Generator().manual_seed(seed * views + view))
        columns.append(_restore_pixels(drawn.contiguous().numpy(), preprocessing))
    titles = ["stored", *(f"view {view + 1}" for view in range(views))]
    names = [
        f"{label}   {item_id.removeprefix(f'{label}/')}"
        for label, item_id in zip(items.labels.tolist(), items.ids.tolist(), strict=True)
    ]
    return _lay_out(columns, titles, names, preprocessing.rule.order == "BGR")


def _restore_pixels(prepared: Float32s, preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
    """What normalisation made of pixels, as pixels."""
    mean, std = preprocessing.normalisation
    return np.asarray(np.clip((prepared * std + mean) * 255, 0, 255).round(), dtype=np.uint8)


def _lay_out(
    columns: list[NDArray[np.uint8]], titles: list[str], names: list[str], is_bgr: bool
) -> Image.Image:
    height, width = columns[0].shape[2:]
    factor = max(1, -(-LEAST_SIDE // min(height, width)))
    height, width = height * factor, width * factor
    font = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / FONT), FONT_SIZE)
    size = (GAP + len(columns) * (width + GAP), LINE + len(names) * (LINE + height + GAP))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        draw.text((GAP + column * (width + GAP), 2), title, "gray", font)
    for row, name in enumerate(names):
        top = LINE + row * (LINE + height + GAP)
        draw.text((GAP, top + 2), name, "black", font)
        for column, images in enumerate(columns):
            pixels = images[row][::-1] if is_bgr else images[row]
            image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
            image = image.resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(image, (GAP + column * (width + GAP), top + LINE))
    return sheet
