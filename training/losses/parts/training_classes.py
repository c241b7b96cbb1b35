"""Facts about the training classes that some losses need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from torch import Tensor


@dataclass(frozen=True)
class TrainingClasses:
    """What a loss may know of the classes it is trained on; the code of a class is its position.

    Attributes:
        names: distinct texts [c].
        sizes: training items of each class [c].
        paths: numbers of each class's groups from the broadest down [c][levels].
        teacher_directions: unit means of a teacher's features, float32 [c, d]; None without a teacher.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    teacher_directions: Tensor | None = None

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.names)

    @classmethod
    def build_placeholder(cls, count: int) -> Self:
        """So many classes of which nothing else is known."""
        return cls(tuple(map(str, range(count))), (1,) * count, ((),) * count)
