"""Images out of untrusted bytes: the one decoder of training, wrapping and serving."""

from __future__ import annotations

import io
import warnings
from functools import partial

from PIL import Image, UnidentifiedImageError

from encoder.inputs.preprocessing import LIMITS, InputLimits, RefusedInput

# the formats people have; the rarer decoders of Pillow are attack surface without use
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
_START_OF_SCAN = b"\xff\xda"


def check_size(size: int, limits: InputLimits = LIMITS, number: int = 0) -> None:
    """Raises RefusedInput for an image file of too many bytes."""
    if size > limits.image_bytes:
        raise RefusedInput(number, f"the image has {size} bytes, at most {limits.image_bytes} are taken.")


def decode_image(content: bytes, limits: InputLimits = LIMITS, number: int = 0) -> Image.Image:
    """Decode the bytes of an image file; its size is checked from the header, before any pixel is decoded.

    Args:
        number: the image's number in error messages.

    Raises:
        RefusedInput: too large, of another format, or broken.
    """
    refuse = partial(RefusedInput, number)
    check_size(len(content), limits, number)
    try:
        with warnings.catch_warnings():
            # Pillow's own pixel limit is a warning first; ours is checked below and is lower
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = image.size
            if width * height > limits.image_pixels:
                raise refuse(
                    f"the image has {width} x {height} pixels, at most {limits.image_pixels} are taken: "
                    "shrink it first."
                )
            if max(width, height) > limits.image_side:
                raise refuse(
                    f"the image has {width} x {height} pixels, at most {limits.image_side} are taken for a "
                    "side: shrink it first."
                )
            if image.format in ("JPEG", "MPO") and content.count(_START_OF_SCAN) > limits.image_scans:
                raise refuse(
                    f"the image is a JPEG of over {limits.image_scans} scans, each of which takes as long as "
                    "a whole image: save it again."
                )
            image.load()
    except UnidentifiedImageError:
        raise refuse(f"this is not an image; {', '.join(FORMATS)} are taken.") from None
    except Image.DecompressionBombError:
        raise refuse(f"the image has more than {limits.image_pixels} pixels: shrink it first.") from None
    except RefusedInput:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise refuse(f"the image is broken ({type(error).__name__}).") from None
    return image
