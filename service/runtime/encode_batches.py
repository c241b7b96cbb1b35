"""Encoder inputs of requests that come at the same time are computed together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from common.array_types import Float32s
from encoder import Encoder
from encoder.encoder import EncoderInput
from service.errors.problems import build_overloaded
from service.runtime.compute_pool import PATIENCE, ComputePool
from service.telemetry.prometheus import ENCODED


@dataclass(frozen=True)
class _Asked:
    encoder: Encoder
    inputs: Sequence[EncoderInput]
    answer: asyncio.Future[Float32s]


class EncodeBatches:
    """Micro-batches: while all threads compute, inputs collect; a thread that is free takes what is there.

    Nobody waits while a thread is free, unless ``wait`` says so.

    Args:
        compute: where batches run.
        threads: batches that run at once.
        batch: inputs of one batch; a request of more is a batch of its own.
        wait: seconds that a batch which is not full waits for company.
    """

    def __init__(self, compute: ComputePool, threads: int, batch: int, wait: float) -> None:
        self._compute = compute
        self._free = threads
        self._most_waiting = int(PATIENCE * threads * batch)
        self._batch, self._wait = batch, wait
        self._queue: deque[_Asked] = deque()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def encode(self, encoder: Encoder, inputs: Sequence[EncoderInput]) -> Float32s:
        """Unit rows float32 [n, d] of inputs.

        Raises:
            RefusedInput: one of these inputs cannot be used.
            ServiceProblem: ``overloaded`` (429) when over four full batches wait for each thread, or
                ``deadline-exceeded`` (503).
        """
        if self._waiting and self._waiting + len(inputs) > self._most_waiting:
            raise build_overloaded("too many inputs to encode at once")
        answer: asyncio.Future[Float32s] = asyncio.get_running_loop().create_future()
        self._queue.append(_Asked(encoder, inputs, answer))
        self._waiting += len(inputs)
        if self._waiting >= self._batch or not self._wait:
            self._begin()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._wait, self._begin)
        return await answer

    def _begin(self) -> None:
        """Give free threads what waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queue and self._free:
            self._free -= 1
            task = asyncio.create_task(self._run(self._next()))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def _next(self) -> list[_Asked]:
        """The requests at the head of the queue that make up one batch of one encoder."""
        taken: list[_Asked] = []
        rows = 0
        while self._queue:
            one = self._queue[0]
            if taken and (one.encoder is not taken[0].encoder or rows + len(one.inputs) > self._batch):
                break
            taken.append(self._queue.popleft())
            rows += len(one.inputs)
            self._waiting -= len(one.inputs)
        return taken

    async def _run(self, asked: list[_Asked]) -> None:
        # who has gone away meanwhile needs no answer
        asked = [one for one in asked if not one.answer.done()]
        try:
            if asked:
                answers = await self._compute.run(lambda: _encoded(asked), bounded=False)
                for one, found in zip(asked, answers, strict=True):
                    _give(one, found)
        except Exception as error:
            for one in asked:
                _give(one, error)
        finally:
            self._free += 1
            self._begin()


def _encoded(asked: list[_Asked]) -> list[Float32s | Exception]:
    """Rows of each request; where an input cannot be used, each request alone, so that no other suffers."""
    inputs = [one for some in asked for one in some.inputs]
    ENCODED.observe(len(inputs))
    try:
        rows = asked[0].encoder.encode(inputs)
    except Exception as error:
        return [error] if len(asked) == 1 else [_encoded([one])[0] for one in asked]
    return list(np.split(rows, np.cumsum([len(some.inputs) for some in asked])[:-1]))


def _give(one: _Asked, found: Float32s | Exception) -> None:
    if one.answer.done():
        return
    if isinstance(found, Exception):
        one.answer.set_exception(found)
    else:
        one.answer.set_result(found)
