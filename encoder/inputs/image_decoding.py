"""Decoding of images from untrusted bytes."""

from __future__ import annotations

import base64
import binascii
import io
import warnings

from PIL import Image, UnidentifiedImageError

from encoder.inputs.preprocessing import InputLimits
from encoder.refused_input import RefusedInput

# the formats people have; the rarer decoders of Pillow are attack surface without use
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def decode_image(content: bytes, limits: InputLimits, number: int = 0) -> Image.Image:
    """Decode an image; its size is checked from the header, before any pixel is decoded.

    Args:
        content: the file's bytes.
        number: the image's number in error messages.

    Raises:
        RefusedInput: too large, of another format, or broken.
    """
    if len(content) > limits.image_bytes:
        raise RefusedInput(
            number, f"the image has {len(content)} bytes, at most {limits.image_bytes} are taken."
        )
    try:
        with warnings.catch_warnings():
            # Pillow's own pixel limit is a warning first; ours is checked below and is lower
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > limits.image_pixels:
                raise RefusedInput(
                    number,
                    f"the image has {width} x {height} pixels, at most {limits.image_pixels} are taken: "
                    "shrink it first.",
                )
            image.load()
    except UnidentifiedImageError:
        raise RefusedInput(number, f"this is not an image; {', '.join(FORMATS)} are taken.") from None
    except Image.DecompressionBombError:
        raise RefusedInput(
            number, f"the image has more than {limits.image_pixels} pixels: shrink it first."
        ) from None
    except RefusedInput:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise RefusedInput(number, f"the image is broken ({type(error).__name__}).") from None
    return image


def decode_base64_image(text: str, limits: InputLimits, number: int = 0) -> Image.Image:
    """Decode ``data:image/...;base64,...`` or bare base64; raises RefusedInput as `decode_image`."""
    encoded = text
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RefusedInput(number, "a data URI must read data:image/<type>;base64,<data>.")
    if len(encoded) > limits.image_bytes * 4 // 3 + 4:
        raise RefusedInput(
            number, f"the image has over {limits.image_bytes} bytes, which is the most that is taken."
        )
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedInput(number, "this is not a base64 data URI of an image.") from None
    return decode_image(content, limits, number)
