"""torch tensors as arrays, also in the requests of the client."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
import torch

from common.errors import InputError
from common.tensors import is_tensor, read_tensor, read_tensors
from limen.client.requests import match, search, upsert

ROWS = np.array([[0.5, -1.0], [2.0, 0.0]], dtype=np.float32)
FORMS = {
    "gradient": torch.tensor(ROWS, requires_grad=True),
    "bfloat16": torch.tensor(ROWS).bfloat16(),
    "sparse": torch.tensor(ROWS).to_sparse(),
    "transposed": torch.tensor(ROWS.T).T,
}


@pytest.mark.parametrize("form", FORMS)
def test_a_tensor_of_any_form_is_the_same_array(form: str) -> None:
    assert is_tensor(FORMS[form])
    np.testing.assert_array_equal(read_tensor(FORMS[form]), ROWS)


def test_what_is_no_tensor_is_left_as_it_is() -> None:
    for value in (ROWS, "Tensor", None, {"a": 1}):
        assert not is_tensor(value)
        assert read_tensors(value) is value
    assert [row.tolist() for row in read_tensors(list(torch.tensor(ROWS)))] == ROWS.tolist()


@pytest.mark.parametrize("queries", [*FORMS.values(), list(torch.tensor(ROWS, requires_grad=True))])
def test_the_client_sends_tensors_as_rows(queries: Any) -> None:
    assert search(queries).content == ROWS.astype("<f4").tobytes()
    assert match(queries).content == ROWS.astype("<f4").tobytes()


def test_the_client_sends_tensors_inside_json() -> None:
    item = {"id": "a", "label": "b", "vector": torch.tensor([0.5, 1.0], requires_grad=True)}
    content = upsert([item]).content
    assert content is not None
    assert orjson.loads(content)["items"][0]["vector"] == [0.5, 1.0]


@pytest.mark.parametrize("queries", [[[1.0], [1.0, 2.0]], ["a"], [{"id": "a"}, [1.0]]])
def test_queries_that_are_no_rows_are_one_sentence(queries: Any) -> None:
    with pytest.raises(InputError, match="queries must be rows of numbers, or all of them references"):
        search(queries)
