"""The library's losses under our names have its parameters, with its defaults and with types."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import pytest

from api_schemas.yaml_config import NamedPart
from common.errors import ConfigError
from tests.training.losses.cases import NAMES
from training.losses import LOSSES, TrainingClasses, build_loss
from training.losses.pml_losses import PmlLoss

PML_NAMES = [name for name in NAMES if issubclass(LOSSES[name], PmlLoss)]
LEFT_OUT = {"margin": {"num_classes"}}  # with it the margin is one per class, and labels must be codes


def get_library_class(name: str) -> type:
    return next(
        base for base in LOSSES[name].__mro__ if base.__module__.startswith("pytorch_metric_learning")
    )


def read_library_defaults(library_class: type) -> dict[str, Any]:
    """Name and default of the parameters of a class and of the bases that its ``*args`` go to."""
    defaults: dict[str, Any] = {}
    for base in library_class.__mro__:
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        for key, parameter in parameters.items():
            if key not in ("self", "args", "kwargs"):
                defaults.setdefault(key.replace("embedding_size", "embedding_dim"), parameter.default)
        if "args" not in parameters:
            break
    return defaults


@pytest.mark.parametrize("name", PML_NAMES)
def test_parameters_and_defaults_are_the_librarys(name: str) -> None:
    defaults = read_library_defaults(get_library_class(name))
    expected = {key: value for key, value in defaults.items() if key not in LEFT_OUT.get(name, set())}
    signature = inspect.signature(LOSSES[name])
    assert {key: part.default for key, part in signature.parameters.items()} == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_of_a_loss_has_a_type(name: str) -> None:
    hints = get_type_hints(LOSSES[name].__init__)
    for key, parameter in inspect.signature(LOSSES[name]).parameters.items():
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert hints[key] not in (Any, inspect.Parameter.empty)


def test_a_value_of_another_type_is_refused() -> None:
    classes = TrainingClasses.build_placeholder(2)
    for name, key, value in (("fast_ap", "num_bins", 2.5), ("margin", "triplets_per_anchor", "some")):
        with pytest.raises(ConfigError, match=rf"loss \({name}\): {key}: "):
            build_loss(NamedPart(name=name, **{key: value}), classes=classes, embedding_dim=2)


def test_all_of_the_librarys_losses_are_registered_under_their_names() -> None:
    assert len(PML_NAMES) == 10
    assert all(LOSSES[name].name == name for name in NAMES)
