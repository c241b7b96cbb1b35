"""Images from bytes nobody vouches for."""

from __future__ import annotations

import base64
import binascii
import io
import warnings

from PIL import Image, UnidentifiedImageError

from encoder.refused_input import RefusedInput

MAX_IMAGE_BYTES = 16 << 20
MAX_IMAGE_PIXELS = 32_000_000
# the formats people have; the rarer decoders of Pillow are attack surface without use
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")


def image_from_bytes(
    content: bytes, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS, number: int = 0
) -> Image.Image:
    """Decode an image; its size is checked from the header, before any pixel is decoded.

    Args:
        content: the file's bytes.
        max_bytes, max_pixels: what is refused above.
        number: what error messages call it by.

    Raises:
        RefusedInput: too large, of another format, or broken.
    """
    if len(content) > max_bytes:
        raise RefusedInput(number, f"the image has {len(content)} bytes, at most {max_bytes} are taken.")
    try:
        with warnings.catch_warnings():
            # Pillow's own pixel limit is a warning first; ours is checked below and is lower
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > max_pixels:
                raise RefusedInput(
                    number,
                    f"the image has {width} x {height} pixels, at most {max_pixels} are taken: "
                    "shrink it first.",
                )
            image.load()
    except UnidentifiedImageError:
        raise RefusedInput(number, f"this is not an image; {', '.join(FORMATS)} are taken.") from None
    except Image.DecompressionBombError:
        raise RefusedInput(number, f"the image has more than {max_pixels} pixels: shrink it first.") from None
    except RefusedInput:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise RefusedInput(number, f"the image is broken ({type(error).__name__}).") from None
    return image


def image_from_text(
    text: str, max_bytes: int = MAX_IMAGE_BYTES, max_pixels: int = MAX_IMAGE_PIXELS, number: int = 0
) -> Image.Image:
    """Decode ``data:image/...;base64,...`` or bare base64; raises RefusedInput as `image_from_bytes`."""
    encoded = text
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise RefusedInput(number, "a data URI must read data:image/<type>;base64,<data>.")
    if len(encoded) > max_bytes * 4 // 3 + 4:
        raise RefusedInput(number, f"the image has over {max_bytes} bytes, which is the most that is taken.")
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedInput(number, "this is not a base64 data URI of an image.") from None
    return image_from_bytes(content, max_bytes, max_pixels, number)
