"""Concurrent requests encoded together: what arrives while the model is at work goes into its next call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from simcse_tf.data.strings import PromptName

# Calls of the model at the same time: one uses the cores that the other leaves idle at its end.
_CALLS = 2


class QueueFullError(Exception):
    """So many texts are waiting that no more are taken."""


@dataclass(eq=False)
class _Request:
    texts: list[str]
    prompt_name: PromptName | None
    # `(len(texts), dim)`, filled from the front.
    vectors: np.ndarray
    answered: asyncio.Future
    # Texts that a call has taken, and texts whose vectors are there.
    taken: int = 0
    encoded: int = 0


class Batcher:
    """Encodes the texts of concurrent requests in common calls of a model; belongs to one event loop.

    No request waits for company: a call begins as soon as a thread is free, with whatever has arrived by then. Where
    more texts wait than a call takes, each request gets its share of the call: a single text does not wait until the
    thousands of another request are encoded.

    Args:
        encode: `n` texts, and the name of the prompt for all of them, to `(n, dim)` float32; called from threads.
        dim: Of the vectors.
        batch_size: Most texts per call.
        characters: Most characters per call, unless one text has more.
        max_waiting: Texts that may wait for a call.
        observe: Called after each call with its number of texts.
    """

    def __init__(
        self,
        encode: Callable[[list[str], PromptName | None], np.ndarray],
        *,
        dim: int,
        batch_size: int,
        characters: int,
        max_waiting: int,
        observe: Callable[[int], None],
    ):
        self._encode = encode
        self._dim = dim
        self._batch_size = batch_size
        self._characters = characters
        self._max_waiting = max_waiting
        self._observe = observe
        self._requests: deque[_Request] = deque()
        self._threads = ThreadPoolExecutor(_CALLS, thread_name_prefix="encode")
        self._workers: set[asyncio.Task] = set()
        # Texts that no call has taken yet.
        self.waiting = 0

    async def encode(self, texts: list[str], prompt_name: PromptName | None = None) -> np.ndarray:
        """`(len(texts), dim)` float32, in the order of `texts`, each with the prompt of that name before it.

        Raises:
            QueueFullError: Too many texts are waiting already.
        """
        if not texts:
            return np.zeros((0, self._dim), "float32")
        if self.waiting + len(texts) > self._max_waiting:
            raise QueueFullError
        answered = asyncio.get_running_loop().create_future()
        request = _Request(texts, prompt_name, np.empty((len(texts), self._dim), "float32"), answered)
        self._requests.append(request)
        self.waiting += len(texts)
        if len(self._workers) < _CALLS:
            self._workers.add(asyncio.create_task(self._work()))
        await answered
        return request.vectors

    async def _work(self) -> None:
        """Calls the model until nothing waits."""
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None
        try:
            while parts := self._next_call():
                texts = [text for request, rows in parts for text in request.texts[rows]]
                prompt_name = parts[0][0].prompt_name
                try:
                    _answer(parts, await loop.run_in_executor(self._threads, self._encode, texts, prompt_name))
                except Exception as e:
                    for request, _ in parts:
                        self._fail(request, e)
                else:
                    self._observe(len(texts))
        finally:
            # At once, not in a callback of the task: a request that came in between would find it at work, and wait
            # forever.
            self._workers.discard(this)

    def _next_call(self) -> list[tuple[_Request, slice]]:
        """Takes the texts of the next call from those that wait: an equal share of each request, the oldest first.

        A call has one prompt, the oldest request's; requests with others come first in the next.
        """
        parts: list[tuple[_Request, slice]] = []
        others: list[_Request] = []
        room, characters = self._batch_size, self._characters
        share = max(1, room // max(1, len(self._requests)))
        for _ in range(len(self._requests)):
            if not room or (parts and characters <= 0):
                break
            request = self._requests.popleft()
            # Its client has gone.
            if request.answered.cancelled():
                self.waiting -= len(request.texts) - request.taken
                continue
            if parts and request.prompt_name != parts[0][0].prompt_name:
                others.append(request)
                continue
            stop = request.taken
            most = min(stop + min(share, room), len(request.texts))
            while stop < most and (stop == request.taken or characters >= len(request.texts[stop])):
                characters -= len(request.texts[stop])
                stop += 1
            rows = slice(request.taken, stop)
            parts.append((request, rows))
            room -= rows.stop - rows.start
            self.waiting -= rows.stop - rows.start
            request.taken = rows.stop
            if request.taken < len(request.texts):
                self._requests.append(request)
        self._requests.extendleft(reversed(others))
        return parts

    def _fail(self, request: _Request, e: Exception) -> None:
        if request in self._requests:
            self._requests.remove(request)
            self.waiting -= len(request.texts) - request.taken
        if not request.answered.done():
            request.answered.set_exception(e)


def _answer(parts: list[tuple[_Request, slice]], vectors: np.ndarray) -> None:
    """Gives each request its vectors of a call."""
    done = 0
    for request, rows in parts:
        count = rows.stop - rows.start
        request.vectors[rows] = vectors[done : done + count]
        done += count
        request.encoded += count
        # One that was cancelled, or whose other texts failed, is done already.
        if request.encoded == len(request.texts) and not request.answered.done():
            request.answered.set_result(None)
