"""Files inside texts: base64 data URIs, as requests carry images and recordings."""

from __future__ import annotations

import base64
import binascii
from functools import partial

from encoder.inputs.preprocessing import RefusedInput


def decode_data_uri(text: str, noun: str, family: str, most: int, number: int) -> bytes:
    """Decode ``data:<family>/...;base64,...`` or bare base64.

    Args:
        noun: what the file is in messages, with its article.
        family: of the media type, such as image.
        most: bytes that are taken.
        number: the input's number in error messages.

    Raises:
        RefusedInput: no such text, or too long.
    """
    encoded, refuse = text, partial(RefusedInput, number)
    if text.startswith("data:"):
        head, comma, encoded = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise refuse(f"a data URI must read data:{family}/<type>;base64,<data>.")
    if len(encoded) > most * 4 // 3 + 4:
        size = len(encoded) // 4 * 3 - encoded[-2:].count("=")
        raise refuse(f"the {noun.split()[-1]} has {size} bytes, at most {most} are taken.")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise refuse(f"this is not a base64 data URI of {noun}.") from None
