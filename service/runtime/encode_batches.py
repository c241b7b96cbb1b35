"""Micro-batches of encoder inputs from requests that arrive together, and the limit on inputs that wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.array_types import UnitVectors
from encoder import Encoder, RawInput
from service.errors.problems import build_overloaded
from service.runtime.compute_pool import PATIENCE, ComputePool
from service.telemetry.prometheus import ENCODED


@dataclass(frozen=True)
class _Waiting:
    """The inputs of one request, and where its vectors are delivered."""

    encoder: Encoder
    inputs: Sequence[RawInput]
    vectors: asyncio.Future[UnitVectors]


class EncodeBatches:
    """Micro-batching: inputs collect while all threads compute; a free thread takes what is there.

    A request waits only while no thread is free, unless ``wait`` is set.

    Args:
        compute: where batches run.
        threads: batches that run at once.
        batch: inputs of one batch; a larger request is a batch of its own.
        wait: maximum seconds to wait for a batch to fill.
    """

    def __init__(self, compute: ComputePool, threads: int, batch: int, wait: float) -> None:
        self._compute = compute
        self._free_threads = threads
        self._max_waiting = int(PATIENCE * threads * batch)
        self._batch, self._wait = batch, wait
        self._queue: deque[_Waiting] = deque()
        self._waiting_inputs = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def encode(self, encoder: Encoder, inputs: Sequence[RawInput]) -> UnitVectors:
        """Unit vectors float32 [n, d] of the inputs.

        Raises:
            RefusedInput: one of these inputs cannot be used.
            ServiceProblem: ``overloaded`` (429) when over four full batches wait for each thread, or
                ``deadline-exceeded`` (503).
        """
        if self._waiting_inputs and self._waiting_inputs + len(inputs) > self._max_waiting:
            raise build_overloaded("too many inputs to encode at once")
        vectors: asyncio.Future[UnitVectors] = asyncio.get_running_loop().create_future()
        self._queue.append(_Waiting(encoder, inputs, vectors))
        self._waiting_inputs += len(inputs)
        if self._waiting_inputs >= self._batch or not self._wait:
            self._start_batches()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait, self._start_batches)
        return await vectors

    def _start_batches(self) -> None:
        """Give waiting requests to free threads."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._free_threads:
            self._free_threads -= 1
            task = asyncio.create_task(self._run(self._take_batch()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _take_batch(self) -> list[_Waiting]:
        """The requests at the head of the queue that fit into one batch of one encoder."""
        batch: list[_Waiting] = []
        rows = 0
        while self._queue:
            request = self._queue[0]
            if batch and (
                request.encoder is not batch[0].encoder or rows + len(request.inputs) > self._batch
            ):
                break
            batch.append(self._queue.popleft())
            rows += len(request.inputs)
            self._waiting_inputs -= len(request.inputs)
        return batch

    async def _run(self, batch: list[_Waiting]) -> None:
        # cancelled requests need no answer
        batch = [request for request in batch if not request.vectors.done()]
        try:
            if batch:
                results = await self._compute.run(lambda: _encode(batch), bounded=False)
                for request, result in zip(batch, results, strict=True):
                    _deliver(request, result)
        except Exception as error:
            for request in batch:
                _deliver(request, error)
        finally:
            self._free_threads += 1
            self._start_batches()


def _encode(batch: list[_Waiting]) -> list[UnitVectors | Exception]:
    """The vectors of each request; if an input is refused, each request is encoded by itself."""
    inputs = [item for request in batch for item in request.inputs]
    ENCODED.observe(len(inputs))
    try:
        rows = batch[0].encoder.encode(inputs)
    except Exception as error:
        return [error] if len(batch) == 1 else [_encode([request])[0] for request in batch]
    return list(np.split(rows, np.cumsum([len(request.inputs) for request in batch])[:-1]))


def _deliver(request: _Waiting, result: UnitVectors | Exception) -> None:
    if request.vectors.done():
        return
    if isinstance(result, Exception):
        request.vectors.set_exception(result)
    else:
        request.vectors.set_result(result)
