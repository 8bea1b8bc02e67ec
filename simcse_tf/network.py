"""Whether there is a network, and downloads that are known to be complete. Standard library only."""

from __future__ import annotations

import http.client
import queue
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

# Seconds without an answer after which a host counts as unreachable.
PATIENCE = 10.0


class UnreachableError(Exception):
    """An address does not give what was asked of it; says why.

    Attributes:
        silent: There was no answer at all, so that asking the same host again is of no use.
    """

    def __init__(self, reason: str, *, silent: bool):
        super().__init__(reason)
        self.silent = silent


def check(url: str) -> None:
    """Checks that the host of an address answers, with an error if need be: then there is a network.

    Raises:
        UnreachableError: No answer within `PATIENCE` seconds.
    """
    try:
        _open(urllib.request.Request(url, method="HEAD")).close()
    except UnreachableError as e:
        if e.silent:
            raise


def download(url: str, to: Path) -> None:
    """Downloads a file.

    Raises:
        UnreachableError: No answer, an error, or fewer bytes than were announced.
        OSError: The file cannot be written.
    """
    with _open(urllib.request.Request(url)) as response, to.open("wb") as file:
        while block := _read(response):
            file.write(block)
        # http.client ends a body that breaks off like one that is complete.
        announced = response.headers["Content-Length"]
        if announced is not None and file.tell() != int(announced):
            raise UnreachableError(f"cut off after {file.tell()} of {announced} bytes", silent=False)


def _open(request: urllib.request.Request) -> Any:
    """Opens an address, giving up after `PATIENCE` seconds in all.

    The socket's own timeout counts for each of a host's addresses and not for the look-up of its name.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(request, timeout=PATIENCE))
        except Exception as e:
            answers.put(e)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise UnreachableError(f"no answer in {PATIENCE:g} seconds", silent=True) from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        raise UnreachableError(f"HTTP {answer.code} {answer.reason}", silent=False) from answer
    if isinstance(answer, OSError | http.client.HTTPException):
        raise _no_answer(answer) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _read(response: Any) -> bytes:
    try:
        return response.read(1 << 20)
    except (OSError, http.client.HTTPException) as e:
        raise _no_answer(e) from e


def _no_answer(e: Exception) -> UnreachableError:
    reason = getattr(e, "reason", e)
    return UnreachableError(str(reason) or type(reason).__name__, silent=True)
