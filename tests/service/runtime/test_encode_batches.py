"""Micro-batches of encoder inputs: what is batched together, what waits, what is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import pytest

from encoder import RefusedInput
from service.errors.problems import ServiceProblem
from service.runtime.compute_pool import ComputePool
from service.runtime.encode_batches import EncodeBatches


class Doubling:
    """An encoder of rows that doubles them, holds each batch until it is released, and notes their sizes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()

    def encode(self, inputs: list[list[float]]) -> np.ndarray:
        self.go.wait(10)
        self.sizes.append(len(inputs))
        for number, row in enumerate(inputs):
            if row[0] == -99:
                raise ZeroDivisionError
            if row[0] < 0:
                raise RefusedInput(number, "this is negative.")
        return 2 * np.array(inputs, dtype=np.float32)


def run_scenario(
    steps: Callable[[EncodeBatches, Any], Coroutine[Any, Any, None]], batch: int = 4, wait: float = 0.0
) -> Doubling:
    encoder = Doubling()

    async def run() -> None:
        compute = ComputePool(1, 10.0, 10.0)
        try:
            await asyncio.wait_for(steps(EncodeBatches(compute, 1, batch, wait), encoder), 20)
        finally:
            encoder.go.set()
            compute.close()

    asyncio.run(run())
    return encoder


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_what_comes_while_the_thread_is_busy_is_encoded_together() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        requests = [asyncio.create_task(encoding.encode(encoder, [[float(n)]])) for n in range(8)]
        await settle()
        encoder.go.set()
        for n, rows in enumerate(await asyncio.gather(*requests)):
            np.testing.assert_array_equal(rows, [[2.0 * n]])

    assert run_scenario(steps).sizes == [1, 4, 3]


def test_requests_of_several_inputs_are_never_torn_and_large_ones_go_alone() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        sizes = [1, 3, 2, 9, 1]
        requests = [asyncio.create_task(encoding.encode(encoder, [[float(size)]] * size)) for size in sizes]
        await settle()
        encoder.go.set()
        for size, rows in zip(sizes, await asyncio.gather(*requests), strict=True):
            np.testing.assert_array_equal(rows, [[2.0 * size]] * size)

    assert run_scenario(steps).sizes == [1, 3, 2, 9, 1]


def test_a_batch_waits_for_company_only_when_set_to() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        encoder.go.set()
        await asyncio.gather(*(encoding.encode(encoder, [[1.0]]) for _ in range(3)))

    assert run_scenario(steps, wait=0.05).sizes == [3]
    assert run_scenario(steps, batch=3, wait=60.0).sizes == [3], "a full batch does not wait"


def test_an_input_that_cannot_be_encoded_is_its_own_request_s_alone() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        bodies = [[[0.0]], [[-99.0]], [[2.0], [-1.0]], [[3.0]]]
        requests = [asyncio.create_task(encoding.encode(encoder, body)) for body in bodies]
        await settle()
        encoder.go.set()
        results = await asyncio.gather(*requests, return_exceptions=True)
        assert isinstance(results[2], RefusedInput)
        assert results[2].number == 1, "counted within the request"
        assert isinstance(results[1], ZeroDivisionError), "whatever went wrong with it"
        np.testing.assert_array_equal(np.concatenate([results[0], results[3]]), [[0.0], [6.0]])

    run_scenario(steps)


def test_what_waits_is_bounded_and_who_left_is_not_encoded() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        requests = [asyncio.create_task(encoding.encode(encoder, [[float(n)]])) for n in range(17)]
        await settle()
        with pytest.raises(ServiceProblem, match="too many inputs") as refusal:
            await encoding.encode(encoder, [[1.0]])
        assert (refusal.value.kind.status, refusal.value.headers["Retry-After"]) == (429, "1")
        for request in requests[1:5]:
            request.cancel()
        encoder.go.set()
        await asyncio.gather(*requests, return_exceptions=True)
        np.testing.assert_array_equal(await encoding.encode(encoder, [[1.0]]), [[2.0]])

    assert run_scenario(steps).sizes == [1, 4, 4, 4, 1]


def test_batches_are_of_one_encoder() -> None:
    async def steps(encoding: EncodeBatches, encoder: Any) -> None:
        second_encoder = Doubling()
        second_encoder.go.set()
        first = [asyncio.create_task(encoding.encode(encoder, [[1.0]])) for _ in range(2)]
        second = [asyncio.create_task(encoding.encode(second_encoder, [[1.0]])) for _ in range(2)]
        await settle()
        encoder.go.set()
        await asyncio.gather(*first, *second)
        assert second_encoder.sizes == [2]

    assert run_scenario(steps).sizes == [1, 1]
