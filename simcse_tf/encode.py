"""Encodes a file of texts: `python -m simcse_tf.encode MODEL --input FILE --output FILE.npy|FILE.parquet`.

The array grows in a hidden directory beside the output, block by block, and takes its name when it is complete; a run
that was killed continues with `--resume`. Rows are appended rather than mapped into memory, so that memory use does not
grow with their number. Parquet files are made of the array when it is whole.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro

from simcse_tf import cli, loading
from simcse_tf.checks import require
from simcse_tf.data import sources
from simcse_tf.data.records import Layout, Records, open_records
from simcse_tf.data.rows import suffix
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import check_writable, whole_directory, write_whole
from simcse_tf.serving import compact, parquet, probes, vectors
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.vectors import About

if TYPE_CHECKING:
    import pyarrow

_DESCRIPTION = (
    "Encode a file of texts as an array of unit vectors, or its rows with their vectors as Parquet files. The output "
    "appears when it is complete; a run that was killed continues with --resume. Memory use does not grow with the "
    "number of texts."
)
# Where Parquet files lie until they are whole.
_PARQUET = "parquet"


@dataclass(frozen=True)
class EncodeConfig:
    """Flags of the command."""

    # A SavedModel directory, a run directory, a preset name, a Hugging Face directory, or a model's address in TF
    # Serving.
    model: tyro.conf.Positional[str]
    # One text a line, blank lines included; or a .csv, .tsv or .jsonl file. Also .gz. Row i of the output belongs to
    # line or row i.
    input: Path
    # FILE.npy: a NumPy array (rows, dim) of vectors of unit length. FILE.parquet: a row's id, its text, all other
    # columns of the input, and `vector`: what databases load. With --shard-size a directory of such files.
    output: Path
    # The column of the text, where it is not called text or sentence.
    text_column: str | None = None
    # The column of the ids that Parquet files have; default: id. Without one it is the row's number.
    id_column: str | None = None
    # Numbers of a vector to keep, the first ones, scaled to unit length again; for models that were trained with
    # --matryoshka. Default: all.
    dim: int | None = None
    # What the array holds: float32; int8, a quarter of the bytes: 128 times the numbers; or binary, a 32nd: their
    # signs, 8 to a byte, as numpy.packbits packs them and faiss's binary indexes take them.
    dtype: Dtype = "float32"
    # Rows per file: --output becomes a directory with embeddings-00000-of-00010.npy and so on, and embeddings.json,
    # which lists them; or with .parquet files, if its name ends so. Row i is in shard i // SHARD_SIZE.
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

    @property
    def parquet(self) -> bool:
        """Whether the output is Parquet."""
        return self.output.suffix == ".parquet"


def main(arguments: list[str]) -> None:
    """The command: streams texts through the model into arrays, which appear when they are complete."""
    config = cli.parse(EncodeConfig, arguments, prog=cli.prog("encode"), description=_DESCRIPTION)
    _check(config)
    load = loading.locate(config.model, prompt_name=config.prompt_name, dim=config.dim)
    partial = config.output.with_name(f".{config.output.name}.partial")
    before = _left(config, partial)
    records = _open(config)
    columns = parquet.columns(records) if config.parquet else None
    # What stands beside the texts is written too.
    sha256 = records.sha256 if config.parquet else records.texts_sha256
    about = About(records.count, sha256, config.shard_size or records.count, dtype=config.dtype)
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
            partial,
            about,
            (record.text for record in records.read()),
            encode,
            batch_size=config.batch_size,
            progress=shown.update,
        )
    if columns is not None:
        with cli.phase(console, "writing Parquet"):
            _write_parquet(records, columns, partial, about)
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
    if config.shard_size is None and output.suffix not in (".npy", ".parquet"):
        raise UserError(f"--output {output}: must end in .npy or .parquet. For a directory give --shard-size too.")
    if config.shard_size is not None and output.suffix == ".npy":
        raise UserError(f"--output {output}: with --shard-size it is a directory; give a name without .npy.")
    check_writable(output, "output")
    if config.parquet:
        require("pyarrow", "parquet", "Parquet files need pyarrow")
    replaceable = output.is_file() if config.shard_size is None else _mark(config).is_file()
    if output.exists() and not replaceable:
        raise UserError(f"--output {output}: exists and was not written by this command. Choose another name.")
    if output.exists() and not config.overwrite and not config.resume:
        raise UserError(f"--output {output}: exists. Replace it with --overwrite, or choose another name.")


def _open(config: EncodeConfig) -> Records:
    """Reads the texts once: a byte that is not UTF-8 is found now and not in an hour."""
    if suffix(config.input) not in sources.FORMATS:
        return Records(config.input, Layout(), every_line=True).surveyed(guess=False)
    names = {"text_column": config.text_column, "id_column": config.id_column}
    return open_records(config.input, **names, every_line=True)


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
    if config.parquet or config.shard_size is not None:
        mark = config.output if config.shard_size is None else _mark(config)
        about = parquet.read_about(mark) if config.parquet else vectors.read_about(config.output)
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


def _mark(config: EncodeConfig) -> Path:
    """A file by which a directory is known as this command's."""
    if not config.parquet:
        return config.output / vectors.ABOUT
    return next(config.output.glob("embeddings-00000-of-*.parquet"), config.output / "none")


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


def _write_parquet(records: Records, columns: pyarrow.Schema, partial: Path, about: About) -> None:
    # A run that was killed when it had them.
    shutil.rmtree(partial / _PARQUET, ignore_errors=True)
    try:
        with whole_directory(partial / _PARQUET) as new:
            parquet.write(records, columns, partial, about, new)
    except OSError as e:
        raise UserError(f"{partial}: cannot be written ({e}). Continue with `resume` when it can.") from e


def _publish(partial: Path, about: About, config: EncodeConfig) -> None:
    made = partial / _PARQUET if config.parquet else partial
    if config.shard_size is None:
        os.replace(made / (parquet.name(about, 0) if config.parquet else about.shard(0)[0]), config.output)
        shutil.rmtree(partial)
        return
    if not config.parquet:
        shards = [{"file": name, "rows": rows} for name, rows in map(about.shard, range(about.shards))]
        write_whole(partial / vectors.ABOUT, json.dumps({"dim": about.dim, "shards": shards} | asdict(about)) + "\n")
    if config.output.exists():
        shutil.rmtree(config.output)
    os.rename(made, config.output)
    # Of Parquet: the arrays.
    shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
