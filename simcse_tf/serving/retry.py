"""What a server does not answer, and asking again: exponential back-off."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from simcse_tf.data.strings import PROMPT_NAMES
from simcse_tf.errors import UserError
from simcse_tf.serving.compact import Dtype

T = TypeVar("T")

# Seconds. Until a server has answered once, its address may simply be wrong: nobody should wait long to learn that.
_FIRST_CONTACT = 5.0
_FIRST_DELAY, _LONGEST_DELAY = 0.05, 5.0


class UnavailableError(Exception):
    """The server did not answer, or asked to come back later."""


class NoSignatureError(UserError):
    """The model that is served has no signature of the name that was asked for."""


def refused(where: str, message: str) -> UserError:
    """What to raise for a request that the server refused, as it would refuse it again.

    Args:
        where: The server's address.
        message: What the server said. TF Serving has two messages about signatures, one for each of its interfaces.
    """
    no_signature = "Serving signature" in message and "not found" in message
    return (NoSignatureError if no_signature else UserError)(f"{where}: the server refused the request: {message}")


def served_prompts(encode_batch: Callable[[list[str], str], Any]) -> tuple[str, ...]:
    """The names of a served model's prompts. They are names of signatures, both or neither: one of them is tried."""
    try:
        encode_batch(["."], PROMPT_NAMES[0])
    except NoSignatureError:
        return ()
    return PROMPT_NAMES


def serves_bits(encode_batch: Callable[[list[str], None, Dtype], Any]) -> bool:
    """Whether a served model answers in fewer bits. It has signatures for both or neither: one of them is tried."""
    try:
        encode_batch(["."], None, "binary")
    except NoSignatureError:
        return False
    return True


class Retry:
    """Repeats requests to one server. Threads may share it.

    Args:
        where: The server's address, for the error message.
        retry_for: Seconds after which a request that never succeeded is given up.
    """

    def __init__(self, where: str, retry_for: float):
        self._where = where
        self._retry_for = retry_for
        self._answered = False

    def __call__(self, request: Callable[[], T]) -> T:
        """Runs a request until it succeeds.

        Args:
            request: Raises `UnavailableError` where another try is worth it. It must be harmless to send twice.

        Raises:
            UserError: The time is up.
        """
        patience = self._retry_for if self._answered else min(self._retry_for, _FIRST_CONTACT)
        began, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                answer = request()
            except UnavailableError as e:
                if time.monotonic() - began + delay > patience:
                    raise UserError(
                        f"{self._where}: no answer for {time.monotonic() - began:.0f} s ({e}). Is the server running, "
                        "and is this its address? (TF Serving: port 8501 speaks REST, port 8500 gRPC.)"
                    ) from e
                # Clients that lost the same server must not all come back at the same moment.
                time.sleep(delay * random.uniform(0.5, 1))
                delay = min(2 * delay, _LONGEST_DELAY)
            else:
                self._answered = True
                return answer
