"""torch tensors as numpy arrays, without importing torch: a tensor is known by its type's name."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray


def is_tensor(value: object) -> bool:
    """Whether a value is a torch tensor, a parameter, or of another subclass."""
    kinds = type(value).__mro__
    return any(kind.__name__ == "Tensor" and kind.__module__.partition(".")[0] == "torch" for kind in kinds)


def read_tensor(tensor: Any) -> NDArray[Any]:
    """A tensor with a gradient, of any layout, precision and device; raises what torch raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts that are beta
        tensor = tensor.detach()
        if "strided" not in str(tensor.layout):
            tensor = tensor.to_dense()
        tensor = tensor.cpu()
        if "bfloat16" in str(tensor.dtype) or "float8" in str(tensor.dtype):
            tensor = tensor.float()
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())


def read_tensors(values: Any) -> Any:
    """A tensor, or a list with some in it, with numpy arrays in their place; anything else as it is."""
    if is_tensor(values):
        return read_tensor(values)
    if isinstance(values, list | tuple):
        return [read_tensor(value) if is_tensor(value) else value for value in values]
    return values
