"""Encodes a file of texts, one a line: `python -m simcse_tf.encode MODEL --input FILE --output FILE.npy`.

The array grows in a hidden directory beside the output, block by block, and takes its name when it is complete; a run
that was killed continues with `--resume`. Rows are appended rather than mapped into memory, so that memory use does not
grow with their number.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from simcse_tf import cli, loading
from simcse_tf.data.strings import PromptName
from simcse_tf.data.text import every_line
from simcse_tf.errors import UserError
from simcse_tf.files import check_writable, write_whole
from simcse_tf.serving import compact, probes, vectors
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.vectors import About

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
    # The embeddings: a NumPy array (lines, dim), unit length. With --shard-size a directory of such arrays.
    output: Path
    # Numbers of a vector to keep, the first ones, scaled to unit length again; for models that were trained with
    # --matryoshka. Default: all.
    dim: int | None = None
    # What the array holds: float32; int8, a quarter of the bytes: 128 times the numbers; or binary, a 32nd: their
    # signs, 8 to a byte, as numpy.packbits packs them and faiss's binary indexes take them.
    dtype: Dtype = "float32"
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


def main(arguments: list[str]) -> None:
    """The command: streams texts through the model into arrays, which appear when they are complete."""
    config = cli.parse(EncodeConfig, arguments, prog=cli.prog("encode"), description=_DESCRIPTION)
    _check(config)
    load = loading.locate(config.model, prompt_name=config.prompt_name, dim=config.dim)
    partial = config.output.with_name(f".{config.output.name}.partial")
    before = _left(config, partial)
    about = _survey(config)
    if before is not None:
        _check_texts(config, partial, before, about)
    elif config.output.exists() and config.resume:
        print(f"{config.output}: is complete, {about.rows} x {_complete(config, about)}")
        return

    # TensorFlow is imported from here on; every complaint about flags and texts has been made.
    with cli.lean_imports():
        model = load()
    console = cli.console()
    encode = model.encode
    if config.prompt_name is not None:
        encode = functools.partial(encode, prompt_name=config.prompt_name)
    about = about.of_model(config.model, encode(probes.PROBES), config.prompt_name)
    if config.dtype != "float32":
        encode = functools.partial(encode, dtype=config.dtype)
    if before is None:
        vectors.begin(partial, about)
    else:
        about = vectors.resume(partial, about)
        console.print(f"continuing after {about.done} of {about.rows} texts")
    with cli.Counted(console, "encoding", "texts", about.rows) as shown:
        about = vectors.fill(
            partial, about, every_line(config.input), encode, batch_size=config.batch_size, progress=shown.update
        )
    _publish(partial, about, config)
    in_bits = f", {about.dtype}" if about.dtype != "float32" else ""
    shards = f" in {about.shards} shards" if config.shard_size else ""
    print(f"{config.output}: {about.rows} x {about.dim}{in_bits}{shards}")


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
    check_writable(output, "output")
    replaceable = output.is_file() if config.shard_size is None else (output / vectors.ABOUT).is_file()
    if output.exists() and not replaceable:
        raise UserError(f"--output {output}: exists and was not written by this command. Choose another name.")
    if output.exists() and not config.overwrite and not config.resume:
        raise UserError(f"--output {output}: exists. Replace it with --overwrite, or choose another name.")


def _survey(config: EncodeConfig) -> About:
    """Reads the texts once, 3 million lines a second: a byte that is not UTF-8 is found now and not in an hour."""
    digest, rows, stream = hashlib.sha256(), 0, every_line(config.input)
    while block := list(itertools.islice(stream, 4096)):
        digest.update("".join(f"{text}\n" for text in block).encode())
        rows += len(block)
    if rows == 0:
        raise UserError(f"{config.input}: empty (0 lines), nothing to encode.")
    return About(rows, digest.hexdigest(), config.shard_size or rows, dtype=config.dtype)


def _left(config: EncodeConfig, partial: Path) -> About | None:
    """What a killed run left, if it is to be continued."""
    if config.overwrite or not (partial / vectors.ABOUT).is_file():
        return None
    left = vectors.read_about(partial)
    if not config.resume:
        raise UserError(
            f"--output {config.output}: a run before this one was stopped after {left.done} of {left.rows} texts. "
            "Continue it with --resume, or discard it with --overwrite."
        )
    return left


def _complete(config: EncodeConfig, now: About) -> int:
    """The columns of an output that an earlier run finished.

    Raises:
        UserError: It is of other texts, as far as the number of rows of a single array can tell, or stored otherwise.
    """
    if config.shard_size is not None:
        about = vectors.read_about(config.output)
        _check_texts(config, config.output, about, now)
        return about.dim
    try:
        found = np.load(config.output, mmap_mode="r")
        rows, columns = found.shape
    except (ValueError, EOFError) as e:  # EOFError: the file is empty
        raise UserError(
            f"--output {config.output}: not an array of embeddings ({e}). Replace it with --overwrite."
        ) from e
    if rows != now.rows:
        raise UserError(
            f"--resume: {config.output} has {rows} rows, {config.input} has {now.rows} lines. Replace the output with "
            "--overwrite."
        )
    expected = columns if config.dim is None else compact.width(config.dim, config.dtype)
    if found.dtype != compact.stored_as(config.dtype) or columns != expected:
        asked = f"--dtype {config.dtype}" + (f" --dim {config.dim}" if config.dim is not None else "")
        raise UserError(
            f"--resume: {config.output} has rows of {columns} {found.dtype}, which {asked} does not write. Replace the "
            "output with --overwrite."
        )
    return columns


def _check_texts(config: EncodeConfig, directory: Path, before: About, now: About) -> None:
    vectors.check_texts(directory, before, now, str(config.input))
    if before.dtype != now.dtype:
        raise UserError(
            f"--resume: what is there has --dtype {before.dtype}. Give it again, or start anew with --overwrite."
        )
    if config.dim not in (None, before.dim):
        raise UserError(
            f"--resume: what is there has vectors of {before.dim} numbers, not --dim {config.dim}. Give the same "
            "again, or start anew with --overwrite."
        )
    if before.shard_size != now.shard_size:
        then = "no --shard-size" if before.shards == 1 else f"--shard-size {before.shard_size}"
        raise UserError(f"--resume: the stopped run had {then}. Give it again, or start anew with --overwrite.")


def _publish(partial: Path, about: About, config: EncodeConfig) -> None:
    if config.shard_size is None:
        os.replace(partial / about.shard(0)[0], config.output)
        shutil.rmtree(partial)
        return
    shards = [{"file": name, "rows": rows} for name, rows in map(about.shard, range(about.shards))]
    write_whole(partial / vectors.ABOUT, json.dumps({"dim": about.dim, "shards": shards} | asdict(about)) + "\n")
    if config.output.exists():
        shutil.rmtree(config.output)
    os.rename(partial, config.output)


if __name__ == "__main__":
    cli.run(main)
