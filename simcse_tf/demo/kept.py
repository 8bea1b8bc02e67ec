"""Things that take long to make, each made once and kept for as long as it is among those used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """Keeps the things that were used last; safe for threads.

    Args:
        most: How many; the one that was not used for the longest time goes first.
    """

    def __init__(self, most: int):
        self._most = most
        self._things: OrderedDict[Hashable, Thing] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> Thing | None:
        """What is kept under a key; None if there is nothing, or no longer."""
        with self._lock:
            if key in self._things:
                self._things.move_to_end(key)
            return self._things.get(key)

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """What is kept under a key, made if it is not; whoever asks meanwhile waits for it."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            if (thing := self.find(key)) is not None:
                return thing
            try:
                thing = make()
            except BaseException:
                self._making.pop(key, None)
                raise
            with self._lock:
                self._things[key] = thing
                while len(self._things) > self._most:
                    self._making.pop(self._things.popitem(last=False)[0], None)
            return thing
