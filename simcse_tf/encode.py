"""Encodes a file of texts, one a line: `python -m simcse_tf.encode MODEL --input FILE --output FILE.npy`."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from simcse_tf import cli, loading
from simcse_tf.data.files import BadTextError, decode, lines, readable
from simcse_tf.errors import UserError

# Texts that are sorted by length together, so that a batch has little padding; bounds the memory.
_BLOCK = 8192


@dataclass(frozen=True)
class EncodeConfig:
    """Flags of the command."""

    # A SavedModel directory, a run directory, a preset name or a Hugging Face directory.
    model: tyro.conf.Positional[str]
    # One text a line (also .gz). Row i of the output belongs to line i, blank lines included.
    input: Path
    # The embeddings: a NumPy array (lines, dim), float32, unit length.
    output: Path
    # Texts per call of the model.
    batch_size: int = 64
    # Replace the output file.
    overwrite: bool = False


def main(arguments: list[str]) -> None:
    """The command: streams texts through the model into a memory-mapped array, which appears when it is complete."""
    config = cli.parse(EncodeConfig, arguments, prog="python -m simcse_tf.encode", description=str(__doc__))
    _check(config)
    load = loading.locate(config.model)
    count = sum(1 for _ in texts(config.input))
    if count == 0:
        raise UserError(f"{config.input}: empty (0 lines), nothing to encode.")

    model, console = load(), cli.console()
    partial = config.output.with_name(f".{config.output.name}.partial")
    vectors, done, began = None, 0, time.monotonic()
    stream = texts(config.input)
    while block := list(itertools.islice(stream, _BLOCK)):
        rows = model.encode(block, batch_size=config.batch_size)
        if vectors is None:
            vectors = np.lib.format.open_memmap(partial, "w+", "float32", (count, rows.shape[1]))
        vectors[done : done + len(block)] = rows
        done += len(block)
        rate = done / (time.monotonic() - began)
        console.print(f"{done} of {count} texts  {rate:.0f} texts/s  {(count - done) / rate:.0f} s left")
    assert vectors is not None
    vectors.flush()
    os.replace(partial, config.output)
    print(f"{config.output}: {count} x {vectors.shape[1]}")


def texts(path: Path) -> Iterator[str]:
    """The lines of a file as text, without their line ends; constant memory.

    Raises:
        UserError: The file cannot be read, or a line is no UTF-8; names file and line.
    """
    for number, raw in enumerate(lines(path), 1):
        try:
            yield decode(raw).rstrip("\r\n")
        except BadTextError as e:
            raise UserError(f'{path}:{number}: {e}; the line starts "{readable(raw)}". Correct it.') from None


def _check(config: EncodeConfig) -> None:
    if config.batch_size < 1:
        raise UserError(f"--batch-size {config.batch_size}: must be at least 1.")
    if not config.input.is_file():
        raise UserError(f"--input {config.input}: no such file.")
    if config.output.suffix != ".npy":
        raise UserError(f"--output {config.output}: must end in .npy.")
    if not config.output.parent.is_dir():
        raise UserError(f"--output {config.output}: the directory {config.output.parent} does not exist.")
    if config.output.exists() and not config.overwrite:
        raise UserError(f"--output {config.output}: exists. Replace it with --overwrite, or choose another name.")


if __name__ == "__main__":
    cli.run(main)
