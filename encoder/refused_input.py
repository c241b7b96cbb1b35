"""An input that the encoder does not take."""

from __future__ import annotations

from common.errors import InputError


class RefusedInput(InputError):
    """``number`` is the input's position among those given together, ``reason`` a sentence about it."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"Input {number}: {reason}")
        self.number = number
        self.reason = reason
