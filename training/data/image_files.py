"""Image files, to be decoded when they are needed."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from common.progress import Say, silent_say
from encoder.inputs.image_decoder import FORMATS, check_size, decode_image
from encoder.inputs.image_input import ImagePreprocessing
from encoder.inputs.preprocessing import Preprocessing
from training.data.labelled_files import FileForm, LabelledFile, find_files

SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp")
) | frozenset((".ppm", ".pgm", ".pbm", ".pnm"))


class ImageFile(LabelledFile):
    """One image."""

    def open(self) -> Image.Image:
        """Decode the whole image; raises InputError naming the file when it is broken or too large."""
        with self.name_errors():
            return decode_image(self.read())

    def read_pixels(self, preprocessing: ImagePreprocessing) -> NDArray[np.uint8]:
        """The network's input, not yet normalised: uint8 [channels, h, w]; raises InputError as ``open``."""
        with self.name_errors():
            return preprocessing.compute_pixels(self.open())

    def decode(self, content: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """``read_pixels`` of bytes that were read before, [1, channels, h, w]."""
        assert isinstance(preprocessing, ImagePreprocessing)
        return preprocessing.compute_pixels(decode_image(content))[None]

    def read_time(self) -> np.datetime64:
        """When the image was taken, or else when its file was written; in the camera's own time zone."""
        try:
            with Image.open(io.BytesIO(self.read()), formats=FORMATS) as image:
                exif = image.getexif()
                taken = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal)
            day, _, time = str(taken or exif[ExifTags.Base.DateTime]).partition(" ")
            return np.datetime64(f"{day.replace(':', '-')}T{time}", "s")
        except Exception:  # no such tag, no such time, no image: decoders raise whatever they like
            return super().read_time()


IMAGES = FileForm(
    ImageFile,
    "image",
    SUFFIXES,
    ".png or .jpg",
    check_size,
    f"Images of the kinds {', '.join(FORMATS)} are: save others, such as .heic or .avif, as JPEG or PNG.",
)


def find_images(
    paths: Sequence[Path],
    path_column: str = "path",
    label_column: str = "label",
    encoding: str | None = None,
    say: Say = silent_say,
    needs_labels: bool = True,
) -> list[ImageFile]:
    """Every image at those paths; see ``find_files``."""
    return find_files(IMAGES, paths, path_column, label_column, encoding, say, needs_labels)
