"""Encodes a file of texts, one a line: `python -m simcse_tf.encode MODEL --input FILE --output FILE.npy`.

The array grows in a hidden directory beside the output, block by block, and takes its name when it is complete; a run
that was killed continues with `--resume`. Rows are appended rather than mapped into memory, so that memory use does not
grow with their number.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn

from simcse_tf import cli, loading
from simcse_tf.data.rows import BadTextError, decode, lines, readable
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import write_whole
from simcse_tf.serving import probes

# Calls of the model whose texts are sorted by length together, so that a call has little padding. What they give is
# written at once: a kill loses no more.
_CALLS = 32
_ABOUT = "embeddings.json"
_DESCRIPTION = (
    "Encode a file of texts, one a line, as an array of unit vectors. The output appears when it is complete; a run "
    "that was killed continues with --resume. Memory use does not grow with the number of texts."
)


@dataclass(frozen=True)
class EncodeConfig:
    """Flags of the command."""

    # A SavedModel directory, a run directory, a preset name, a Hugging Face directory, or a model's address in TF
    # Serving.
    model: tyro.conf.Positional[str]
    # One text a line (also .gz). Row i of the output belongs to line i, blank lines included.
    input: Path
    # The embeddings: a NumPy array (lines, dim), float32, unit length. With --shard-size a directory of such arrays.
    output: Path
    # Rows per array: --output becomes a directory with embeddings-00000-of-00010.npy and so on, and embeddings.json,
    # which lists them. Row i is in shard i // SHARD_SIZE.
    shard_size: int | None = None
    # Texts per call of the model.
    batch_size: int = 64
    # Put one of the model's prompts before each text, if it was trained with prompts: query, or passage for the texts
    # that queries should find. Default: none.
    prompt_name: PromptName | None = None
    # Start, continue what a killed run left, or find the output complete.
    resume: bool = False
    # Replace the output, and discard what a killed run left.
    overwrite: bool = False


@dataclass(frozen=True)
class About:
    """What the embeddings are of, and how many are there: `embeddings.json`."""

    # Of the texts.
    rows: int
    sha256: str
    shard_size: int
    # Rows that are written.
    done: int = 0
    # Of the model: its name, for people; what it makes of the probes with that prompt, `(probes, dim)`.
    model: str = ""
    fingerprint: tuple[tuple[float, ...], ...] = ()

    @property
    def dim(self) -> int:
        """Numbers per row."""
        return len(self.fingerprint[0])

    @property
    def shards(self) -> int:
        """Number of arrays."""
        return -(-self.rows // self.shard_size)

    def shard(self, i: int) -> tuple[str, int]:
        """File name and rows of an array."""
        name = f"embeddings-{i:05d}-of-{self.shards:05d}.npy"
        return name, min(self.shard_size, self.rows - i * self.shard_size)


def main(arguments: list[str]) -> None:
    """The command: streams texts through the model into arrays, which appear when they are complete."""
    config = cli.parse(EncodeConfig, arguments, prog=cli.prog("encode"), description=_DESCRIPTION)
    _check(config)
    load = loading.locate(config.model, prompt_name=config.prompt_name)
    partial = config.output.with_name(f".{config.output.name}.partial")
    before = _left(config, partial)
    about = _survey(config)
    if before is not None:
        _check_texts(config, before, about)
    elif config.output.exists() and config.resume:
        dim = _complete(config, about)
        print(f"{config.output}: is complete, {about.rows} x {dim}")
        return

    # TensorFlow is imported from here on; every complaint about flags and texts has been made.
    with cli.lean_imports():
        model = load()
    console = cli.console()
    encode = model.encode
    if config.prompt_name is not None:
        encode = functools.partial(encode, prompt_name=config.prompt_name)
    fingerprint = tuple(tuple(row) for row in encode(probes.PROBES).tolist())
    about = replace(about, model=config.model, fingerprint=fingerprint)
    if before is None:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        _save(partial, about)
    else:
        _check_model(partial, before, about)
        about = before
        console.print(f"continuing after {about.done} of {about.rows} texts")

    stream = itertools.islice(texts(config.input), about.done, about.rows)
    with _Shown(about, console) as shown:
        while block := list(itertools.islice(stream, _CALLS * config.batch_size)):
            about = _append(partial, about, encode(block, batch_size=config.batch_size))
            shown.update(about.done)
    if about.done != about.rows:
        raise UserError(f"{config.input}: changed while it was being read. Encode it again with --overwrite.")
    _publish(partial, about, config)
    print(f"{config.output}: {about.rows} x {about.dim}" + (f" in {about.shards} shards" if config.shard_size else ""))


def texts(path: Path) -> Iterator[str]:
    """The lines of a file as text, without their line ends; constant memory.

    Raises:
        UserError: The file cannot be read, or a line is not UTF-8; names file and line.
    """
    for number, raw in enumerate(lines(path), 1):
        try:
            yield decode(raw).rstrip("\r\n")
        except BadTextError as e:
            raise UserError(f'{path}:{number}: {e}; the line starts "{readable(raw)}". Correct it.') from None


def _check(config: EncodeConfig) -> None:
    output = config.output
    if config.batch_size < 1:
        raise UserError(f"--batch-size {config.batch_size}: must be at least 1.")
    if config.shard_size is not None and config.shard_size < 1:
        raise UserError(f"--shard-size {config.shard_size}: must be at least 1.")
    if config.overwrite and config.resume:
        raise UserError("--overwrite and --resume contradict each other: give one of them.")
    if not config.input.is_file():
        raise UserError(f"--input {config.input}: no such file.")
    if config.shard_size is None and output.suffix != ".npy":
        raise UserError(f"--output {output}: must end in .npy. For a directory of arrays give --shard-size too.")
    if config.shard_size is not None and output.suffix == ".npy":
        raise UserError(f"--output {output}: with --shard-size it is a directory; give a name without .npy.")
    if not output.parent.is_dir():
        raise UserError(f"--output {output}: the directory {output.parent} does not exist.")
    if not os.access(output.parent, os.W_OK):
        raise UserError(f"--output {output}: no permission to write in {output.parent}.")
    replaceable = output.is_file() if config.shard_size is None else (output / _ABOUT).is_file()
    if output.exists() and not replaceable:
        raise UserError(f"--output {output}: exists and was not written by this command. Choose another name.")
    if output.exists() and not config.overwrite and not config.resume:
        raise UserError(f"--output {output}: exists. Replace it with --overwrite, or choose another name.")


def _survey(config: EncodeConfig) -> About:
    """Reads the texts once, 3 million lines a second: a byte that is not UTF-8 is found now and not in an hour."""
    digest, rows, stream = hashlib.sha256(), 0, texts(config.input)
    while block := list(itertools.islice(stream, 4096)):
        digest.update("".join(f"{text}\n" for text in block).encode())
        rows += len(block)
    if rows == 0:
        raise UserError(f"{config.input}: empty (0 lines), nothing to encode.")
    return About(rows, digest.hexdigest(), config.shard_size or rows)


def _about(path: Path) -> About:
    try:
        values = json.loads(path.read_text("utf-8"))
        return About(**{field.name: values[field.name] for field in fields(About)})
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path}: was not written by this command ({e}). Start anew with --overwrite.") from e


def _left(config: EncodeConfig, partial: Path) -> About | None:
    """What a killed run left, if it is to be continued."""
    path = partial / _ABOUT
    if config.overwrite or not path.is_file():
        return None
    left = _about(path)
    if not config.resume:
        raise UserError(
            f"--output {config.output}: a run before this one was stopped after {left.done} of {left.rows} texts. "
            "Continue it with --resume, or discard it with --overwrite."
        )
    return left


def _complete(config: EncodeConfig, now: About) -> int:
    """The numbers per row of an output that an earlier run finished.

    Raises:
        UserError: It is of other texts; of a single array that is all its number of rows can tell.
    """
    if config.shard_size is not None:
        about = _about(config.output / _ABOUT)
        _check_texts(config, about, now)
        return about.dim
    try:
        rows, dim = np.load(config.output, mmap_mode="r").shape
    except (ValueError, EOFError) as e:  # EOFError: the file is empty
        raise UserError(
            f"--output {config.output}: not an array of embeddings ({e}). Replace it with --overwrite."
        ) from e
    if rows != now.rows:
        raise UserError(
            f"--resume: {config.output} has {rows} rows, {config.input} has {now.rows} lines. Replace the output with "
            "--overwrite."
        )
    return dim


def _check_texts(config: EncodeConfig, before: About, now: About) -> None:
    if (before.rows, before.sha256) != (now.rows, now.sha256):
        difference = "other texts" if before.rows == now.rows else f"{before.rows} then, {now.rows} now"
        raise UserError(
            f"--resume: the lines of {config.input} are not those that the stopped run read ({difference}). Give the "
            "same file, or start anew with --overwrite."
        )
    if before.shard_size != now.shard_size:
        then = "no --shard-size" if before.shards == 1 else f"--shard-size {before.shard_size}"
        raise UserError(f"--resume: the stopped run had {then}. Give it again, or start anew with --overwrite.")


def _check_model(partial: Path, before: About, now: About) -> None:
    """Checks that this model began the output, and that the files hold the rows that were recorded."""
    then, new = np.array(before.fingerprint), np.array(now.fingerprint)
    if probes.difference(then, new, tolerance=probes.SAME_FLOAT32):
        raise UserError(
            f"--resume: this output was begun with another model ({before.model}) or another --prompt-name, which give "
            "the same texts other vectors. Give those that it was begun with, or start anew with --overwrite."
        )
    for i in range(-(-before.done // before.shard_size)):
        name, rows = before.shard(i)
        written = min(rows, before.done - i * before.shard_size)
        path, size = partial / name, len(_header(rows, before.dim)) + 4 * written * before.dim
        if not path.is_file() or path.stat().st_size < size:
            raise UserError(f"--resume: rows that were written are missing from {path}. Start anew with --overwrite.")


def _append(partial: Path, about: About, vectors: np.ndarray) -> About:
    """Writes rows, then that they are there. A kill in between leaves rows that the next run writes again."""
    done = about.done
    try:
        while len(vectors):
            shard, row = divmod(done, about.shard_size)
            name, rows = about.shard(shard)
            header, here = _header(rows, about.dim), vectors[: rows - row]
            with open(partial / name, "r+b" if row else "wb") as file:
                if row == 0:
                    file.write(header)
                file.seek(len(header) + 4 * row * about.dim)
                file.truncate()
                file.write(np.ascontiguousarray(here, "<f4").tobytes())
                file.flush()
                os.fsync(file.fileno())
            done, vectors = done + len(here), vectors[len(here) :]
        return _save(partial, replace(about, done=done))
    except OSError as e:
        raise UserError(f"{partial}: cannot be written ({e.strerror}). Continue with --resume when it can.") from e


def _save(partial: Path, about: About) -> About:
    write_whole(partial / _ABOUT, json.dumps(asdict(about)) + "\n")
    return about


def _publish(partial: Path, about: About, config: EncodeConfig) -> None:
    if config.shard_size is None:
        os.replace(partial / about.shard(0)[0], config.output)
        shutil.rmtree(partial)
        return
    shards = [{"file": name, "rows": rows} for name, rows in map(about.shard, range(about.shards))]
    write_whole(partial / _ABOUT, json.dumps({"dim": about.dim, "shards": shards} | asdict(about)) + "\n")
    if config.output.exists():
        shutil.rmtree(config.output)
    os.rename(partial, config.output)


def _header(rows: int, dim: int) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (rows, dim)})
    return file.getvalue()


class _Shown:
    """Texts done, texts per second and the time left; on a terminal as a bar, elsewhere a line now and then."""

    def __init__(self, about: About, console: Console):
        columns = [*Progress.get_default_columns(), MofNCompleteColumn(), TextColumn("{task.fields[rate]:.0f} texts/s")]
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task("encoding", total=about.rows, completed=about.done, rate=0.0)
        self._console, self._first, self._total = console, about.done, about.rows

    def __enter__(self) -> _Shown:
        self._bar.start()
        self._began = self._said = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, done: int) -> None:
        """Shows that so many texts are done."""
        now = time.monotonic()
        rate = (done - self._first) / (now - self._began)
        self._bar.update(self._task, completed=done, rate=rate)
        if not self._console.is_terminal and (now - self._said > 15 or done == self._total):
            self._said = now
            left = (self._total - done) / rate
            self._console.print(f"{done} of {self._total} texts  {rate:.0f} texts/s  {left:.0f} s left")


if __name__ == "__main__":
    cli.run(main)
