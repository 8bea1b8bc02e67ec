"""Texts in, unit vectors out: a sentence encoder in LiteRT's format, without TensorFlow.

This file needs nothing but `numpy`, `tokenizers` and `ai-edge-litert`, and reads `model.tflite`, `tokenizer.json` and
`encoder.json` beside it:

    from embedder import Embedder

    Embedder().encode(["Text in, unit vector out."])  # (1, dim) float32

As a command it makes one JSON array of every line: `python embedder.py < sentences.txt > vectors.jsonl`. A model with
prompts takes the name of one: `python embedder.py passage < sentences.txt > vectors.jsonl`.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

# Texts that a thread encodes in one go: enough to make nothing of the hand-over, few enough that all threads end
# together.
_CHUNK = 16
# Threads that work on a text that is alone. More were not measured.
_THREADS_OF_ONE = 2
# The two sides of a search. A model may have a prompt for each.
_PROMPT_NAMES = ("query", "passage")


class Embedder:
    """A sentence encoder. Threads may share it.

    Args:
        directory: Where the files are; by default where this one is.
        threads: Most texts that are encoded at the same time; by default one per processor core. Each has its own copy
            of the weights from its first text on, and so has a text that is encoded alone (with 1 there is one copy).

    Raises:
        ValueError: A file is missing or damaged, or the files are not of the same model.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, *, threads: int | None = None):
        # Absolute, for a process that changes its own later.
        self.directory = (Path(__file__).parent if directory is None else Path(directory)).absolute()
        about = _read(self.directory)
        # Of each text; what follows is not tokenised.
        self._bytes_read = about.get("bytes_read")
        prompts = {name: about.get(f"{name}_prompt", "") for name in _PROMPT_NAMES}
        self._prompts = prompts if any(prompts.values()) else {}
        try:
            self._tokenizer = Tokenizer.from_file(str(self.directory / "tokenizer.json"))
        except Exception as e:  # the library raises no other class
            raise ValueError(
                f"{self.directory / 'tokenizer.json'}: cannot be read ({e}). Export the model again."
            ) from e
        self._model = self.directory / "model.tflite"
        self._written = _identity(self._model)
        self._threads = _cores() if threads is None else threads
        if self._threads < 1:
            raise ValueError(f"threads {threads}: must be at least 1.")
        self.dim: int = about["dim"]
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self._threads)
        # Interpreters, or None for one that has not been made yet; the last one used is the first to be used again. One
        # that works on several cores, for a text that is alone; of several texts each core has its own.
        self._alone: queue.LifoQueue[_Interpreter | None] = queue.LifoQueue()
        self._idle: queue.LifoQueue[_Interpreter | None] = queue.LifoQueue()
        self._alone.put(None)
        if self._threads == 1:
            # One interpreter, and one copy of the weights, for both.
            self._idle = self._alone
        else:
            for _ in range(self._threads):
                self._idle.put(None)

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """What `encode` takes as `prompt_name`: `query` and `passage`; nothing if the model has no prompts."""
        return tuple(self._prompts)

    def encode(self, texts: str | Sequence[str], *, prompt_name: str | None = None) -> np.ndarray:
        """Encodes texts; what a text becomes does not depend on the others.

        Args:
            texts: One text, or any number of them.
            prompt_name: Which of the model's prompts is put before each text: `query`, `passage`, or none.

        Returns:
            `(len(texts), dim)` float32 of unit length; `(dim,)` for a single text.

        Raises:
            TypeError: A text is not a string.
            ValueError: The model has no such prompt; the files were replaced since they were loaded; this version of
                LiteRT cannot load the model.
        """
        if isinstance(texts, str):
            return self.encode([texts], prompt_name=prompt_name)[0]
        if self._process != os.getpid():
            # The threads and locks of the process that this one was forked from are not here.
            self._start()
        ids = self.token_ids(list(texts), prompt_name)
        vectors = np.empty((len(ids), self.dim), "float32")
        # In order of length: an interpreter prepares itself anew for every length.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        size = min(_CHUNK, -(-len(ids) // self._threads)) or 1

        def encode_rows(rows: list[int]) -> None:
            with self._interpreter(self._idle, 1) as interpreter:
                for i in rows:
                    vectors[i] = interpreter(ids[i])

        blocks = [order[start : start + size] for start in range(0, len(ids), size)]
        if len(ids) == 1:
            try:
                with self._interpreter(self._alone, _THREADS_OF_ONE, wait=False) as interpreter:
                    vectors[0] = interpreter(ids[0])
            except queue.Empty:  # another thread has it
                encode_rows(order)
        else:
            for _ in self._pool.map(encode_rows, blocks):
                pass
        return vectors

    def token_ids(self, texts: Sequence[str], prompt_name: str | None = None) -> list[list[int]]:
        """The tokens of each text as the model sees them, special tokens included, cut off at its longest."""
        if prompt_name is not None and prompt_name not in self._prompts:
            expected = "expected query or passage" if self._prompts else "this model has no prompts"
            raise ValueError(f"prompt_name {prompt_name!r}: {expected}.")
        prompt = "" if prompt_name is None else self._prompts[prompt_name]
        for i, text in enumerate(texts):
            if not isinstance(text, str):
                raise TypeError(f"text {i} is of type {type(text).__name__}, not a string: {text!r:.80}")
        # A lone surrogate is a character that UTF-8 has no bytes for, and the cut may be within a character.
        cut = [f"{prompt}{text}".encode("utf-8", "replace")[: self._bytes_read] for text in texts]
        texts = [text.decode("utf-8", "replace") for text in cut]
        if len(texts) == 1:
            # Without the library's own threads, which would go on looking for work while the model wants the cores.
            return [self._tokenizer.encode(texts[0]).ids]
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]

    @contextmanager
    def _interpreter(self, idle: queue.LifoQueue, threads: int, *, wait: bool = True) -> Iterator[_Interpreter]:
        interpreter = idle.get(wait)
        try:
            if interpreter is None:
                if _identity(self._model) != self._written:
                    raise ValueError(f"{self._model}: was replaced after it was loaded. Make a new Embedder.")
                interpreter = _Interpreter(self._model, min(threads, self._threads))
            yield interpreter
        finally:
            idle.put(interpreter)


class _Interpreter:
    """The model for one text at a time, computed by so many threads."""

    def __init__(self, path: Path, threads: int):
        try:
            with _suppress_info():
                self._model = Interpreter(str(path), num_threads=threads)
                self._model.allocate_tensors()
            signature = self._model.get_signature_runner("serving_default")
            self._ids, self._mask = (signature.get_input_details()[name]["index"] for name in ("ids", "mask"))
            self._embedding = signature.get_output_details()["embedding"]["index"]
        except (ValueError, RuntimeError, KeyError) as e:
            raise ValueError(f"{path}: cannot be loaded ({e}). Export the model again.") from e
        self._length = 0

    def __call__(self, ids: list[int]) -> np.ndarray:
        """`(dim,)` float32 of unit length."""
        if len(ids) != self._length:
            # Until all of it is done: it may fail for want of memory.
            self._length = 0
            for tensor in (self._ids, self._mask):
                self._model.resize_tensor_input(tensor, [1, len(ids)])
            self._model.allocate_tensors()
            self._model.set_tensor(self._mask, np.ones((1, len(ids)), "int32"))
            self._length = len(ids)
        self._model.set_tensor(self._ids, np.array([ids], "int32"))
        self._model.invoke()
        return self._model.get_tensor(self._embedding)[0]


_stderr = threading.Lock()


@contextmanager
def _suppress_info() -> Iterator[None]:
    """Leaves out of standard error what LiteRT says of every interpreter at level INFO, and nothing else."""
    with _stderr, ExitStack() as stack:
        try:
            stderr = os.dup(2)
            written = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # there is no standard error, or no directory that can be written to
            yield
            return
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if not line.startswith(b"INFO: "):
                    os.write(2, line)


def _read(directory: Path) -> dict:
    """`encoder.json`, after the files that it names were compared with their checksums."""
    file = directory / "encoder.json"
    try:
        about = json.loads(file.read_text("utf-8"))
        about["dim"], checksums = int(about["dim"]), dict(about["sha256"])
    except FileNotFoundError:
        raise ValueError(f"{file}: no such file. Copy the whole directory of the exported model.") from None
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{file}: cannot be read ({type(e).__name__}: {e}). Copy the directory again.") from e
    for name, expected in checksums.items():
        try:
            found = _sha256(directory / name)
        except FileNotFoundError:
            raise ValueError(
                f"{directory / name}: no such file. Copy the whole directory of the exported model."
            ) from None
        except OSError as e:
            raise ValueError(f"{directory / name}: cannot be read ({e.strerror}).") from e
        if found != expected:
            raise ValueError(
                f"{directory / name}: is not the file that was exported with this model: it was damaged, or is another "
                "model's. Copy the directory again."
            )
    return about


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _identity(file: Path) -> tuple[int, int, int]:
    """Changes when a file is replaced or deleted."""
    try:
        found = file.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _main() -> None:
    if len(sys.argv) > 2 or not set(sys.argv[1:]) <= set(_PROMPT_NAMES):
        sys.exit("usage: python embedder.py [query|passage] < sentences.txt > vectors.jsonl")
    prompt_name = sys.argv[1] if len(sys.argv) > 1 else None
    try:
        embedder = Embedder()
        # Says so if the model has no prompts, before anything is read.
        embedder.token_ids([], prompt_name)
    except ValueError as e:
        sys.exit(str(e))
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    while lines := [line.rstrip("\n") for _, line in zip(range(1024), sys.stdin, strict=False)]:
        for vector in embedder.encode(lines, prompt_name=prompt_name):
            print(json.dumps([round(float(x), 7) for x in vector]))


if __name__ == "__main__":
    try:
        _main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read has read enough; Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
