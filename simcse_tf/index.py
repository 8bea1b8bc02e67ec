"""An index of texts: `python -m simcse_tf.index build|add|remove|search|info`.

An index is a directory that can be searched while it changes. Its vectors are made here, or were made by
`simcse_tf.encode`. Memory does not grow with the number of texts. What a killed process did is continued.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from simcse_tf import cli, loading
from simcse_tf.checks import check_range, require
from simcse_tf.data.records import Layout, Records, open_records
from simcse_tf.errors import UserError
from simcse_tf.files import check_writable
from simcse_tf.indexing import Indexer, Running
from simcse_tf.serving import index, probes, vectors
from simcse_tf.serving.index import About, Index, Writer
from simcse_tf.serving.segment import Bits, Kind
from simcse_tf.serving.vectors import Stored


@dataclass(frozen=True)
class BuildConfig(Running):
    """Flags of `build`."""

    # --- Texts ---

    # A text a line, or a .csv, .tsv or .jsonl file; also .gz. Columns other than the text's are metadata.
    file: tyro.conf.Positional[Path]
    # The directory of the index.
    to: Path
    # The encoder: a SavedModel, LiteRT, run or Hugging Face directory, a preset name, or a TF Serving address.
    model: str | None = None
    # Instead of a model: the directory that simcse_tf.encode --shard-size has written of these texts, float32 or int8.
    vectors: Path | None = None
    # The column of the text, where it is not the only one or called text or sentence.
    text_column: str | None = None
    # The column of the ids, where it is not called id. Without one texts are numbered.
    id_column: str | None = None

    # --- The index ---

    # Compare a query with every vector (flat), with those of the nearest cells (ivf), or walk a graph (hnsw).
    kind: Kind = "flat"
    # Bits of a number of a vector: 32; 8; or 1, with all numbers kept in 8 bits too, on the disk, to put answers in
    # order.
    bits: Bits = 32
    # Numbers of a vector to keep, the first ones, for models that were trained with --matryoshka. Default: all.
    dim: int | None = None


@dataclass(frozen=True)
class AddConfig:
    """Flags of `add`."""

    # The directory of the index.
    to: tyro.conf.Positional[Path]
    # Texts in a file with the columns that the index was built from. A text whose id is there already replaces that.
    file: tyro.conf.Positional[Path]
    # The encoder, where it is no longer where it was when the index was built.
    model: str | None = None
    # Instead of a model: the directory that simcse_tf.encode --shard-size has written of these texts, float32 or int8.
    vectors: Path | None = None
    # Texts per call of the model.
    batch_size: int = 64
    # Write what the index is as JSON here instead of printing it; replaces an older file.
    json: Path | None = None


@dataclass(frozen=True)
class RemoveConfig:
    """Flags of `remove`."""

    # The directory of the index.
    to: tyro.conf.Positional[Path]
    # Ids of texts, all of which must be there.
    ids: tyro.conf.Positional[tuple[str, ...]] = ()
    # And the texts for which this holds: an SQL expression over the columns, such as "year < 2000".
    where: str | None = None
    # Write what the index is as JSON here instead of printing it; replaces an older file.
    json: Path | None = None


@dataclass(frozen=True)
class SearchConfig:
    """Flags of `search`."""

    # The directory of the index.
    of: tyro.conf.Positional[Path]
    # What to look for.
    queries: tyro.conf.Positional[tuple[str, ...]]
    # Only texts for which this holds: an SQL expression over the columns, such as "year >= 2000 and lang = 'en'".
    where: str | None = None
    # Most answers to a query.
    top_k: int = 10
    # Cosine below which a text is not an answer.
    threshold: float = -1.0
    # The encoder, where it is no longer where it was when the index was built.
    model: str | None = None
    # Write the answers as JSON here instead of printing them; replaces an older file.
    json: Path | None = None


@dataclass(frozen=True)
class InfoConfig:
    """Flags of `info`."""

    # The directory of the index.
    of: tyro.conf.Positional[Path]
    # Write what it is as JSON here instead of printing it; replaces an older file.
    json: Path | None = None


def main(arguments: list[str]) -> None:
    """The command."""
    commands: dict[str, tuple[Callable[[list[str]], None], str]] = {
        "build": (_build, "make an index of the texts of a file"),
        "add": (_add, "add the texts of a file"),
        "remove": (_remove, "remove texts by their ids, or all for which something holds"),
        "search": (_search, "find the texts that are nearest to a query"),
        "info": (_info, "say what an index is"),
    }
    cli.dispatch(commands, arguments, f"{cli.prog('index')} COMMAND")


def _parse(cls: type, arguments: list[str], command: str, description: str) -> Any:
    config = cli.parse(cls, arguments, prog=f"{cli.prog('index')} {command}", description=description)
    require("faiss", "index", "an index needs faiss")
    if config.json is not None:
        check_writable(config.json, "json")
    return config


def _build(arguments: list[str]) -> None:
    what = "Make an index of the texts of a file. It appears when it is complete; a killed run continues with --resume."
    config: BuildConfig = _parse(BuildConfig, arguments, "build", what)
    complete = _check_build(config)
    records = open_records(
        config.file,
        text_column=config.text_column,
        id_column=config.id_column,
        every_line=config.vectors is not None,
    )
    console = cli.console()
    make = _vectors(config, records, console)
    if complete:
        about = index.read_about(config.to)
        differs = (about.kind, about.bits) != (config.kind, config.bits) or config.dim not in (None, about.dim)
        if differs or not about.made_of.startswith(records.sha256):
            raise UserError(
                f"`resume`: {config.to} is complete and not what is asked for: it is {about.kind} with `bits` "
                f"{about.bits} and `dim` {about.dim}, of other texts, or changed since. Replace it with `overwrite`."
            )
        print(f"{config.to}: is complete, with vectors by {about.model}")
        return
    console.print(f"{records.count:,} texts; {_columns(records.layout)}", markup=False)
    with Writer(config.to) as writer:
        if config.overwrite:
            shutil.rmtree(writer.work("build"), ignore_errors=True)
        made = make(writer.work("build"))
        with cli.Counted(console, "indexing", "texts", records.count) as shown:
            shown.update(0)
            about = writer.build(
                records.layout,
                records.read(),
                made,
                fingerprint=np.array(made.about.fingerprint, "float32"),
                model=made.about.model,
                kind=config.kind,
                bits=config.bits,
                prompts=made.about.prompt_name == "passage",
                sha256=records.sha256,
                progress=shown.update,
            )
    _report(config.to, about, console, config.json)


def _check_build(config: BuildConfig) -> bool:
    """Checks the flags; says whether the index is complete and is to be left as it is."""
    check_range("batch_size", config.batch_size, low=1)
    if (config.model is None) == (config.vectors is None):
        raise UserError("give `model`, which encodes the texts, or `vectors` that were made of them: one of the two.")
    if config.vectors is not None and config.dim is not None:
        raise UserError("`dim` goes with `model`. Vectors are cut when they are made: `simcse-tf encode --dim`.")
    if config.overwrite and config.resume:
        raise UserError("`overwrite` and `resume` contradict each other: give one of them.")
    cli.check_directory(config.to, "--to")
    index.check_free(config.to)
    there, begun = index.exists(config.to), index.is_begun(config.to)
    if config.overwrite or config.resume:
        return config.resume and there and not begun
    if begun:
        raise UserError(
            f"`to` {config.to}: a run before this one was stopped. Continue it with `resume`, or discard what it did "
            "with `overwrite`."
        )
    if there:
        raise UserError(f"`to` {config.to}: exists. Replace it with `overwrite`, or choose another name.")
    return False


def _add(arguments: list[str]) -> None:
    what = "Add texts to an index, without building it again. A killed run is continued by the same command."
    config: AddConfig = _parse(AddConfig, arguments, "add", what)
    check_range("batch_size", config.batch_size, low=1)
    if config.model is not None and config.vectors is not None:
        raise UserError("give `model` or `vectors`, not both.")
    about = _whole(config.to)
    records = open_records(config.file, like=about.layout, every_line=config.vectors is not None)
    console = cli.console()
    make = _vectors(config, records, console, about)
    with Writer(config.to) as writer:
        if done := writer.was_added(records.sha256, records.count):
            console.print(f"{config.file}: was added last; nothing is left to do", markup=False)
            _report(config.to, done, console, config.json)
            return
        made = make(writer.work("add"))
        with cli.Counted(console, "indexing", "texts", records.count) as shown:
            shown.update(0)
            about, replaced = writer.add(
                records.read(),
                made,
                fingerprint=np.array(made.about.fingerprint, "float32"),
                sha256=records.sha256,
                progress=shown.update,
            )
    console.print(f"{records.count:,} texts added, of which {replaced:,} replaced those with the same ids")
    _report(config.to, about, console, config.json)


def _remove(arguments: list[str]) -> None:
    config: RemoveConfig = _parse(RemoveConfig, arguments, "remove", "Remove texts from an index.")
    if not config.ids and config.where is None:
        raise UserError("nothing to remove: give ids, or `where` with an expression.")
    index.read_about(config.to)
    with Writer(config.to) as writer:
        about, count = writer.remove(config.ids, config.where)
    console = cli.console()
    console.print(f"{count:,} texts removed")
    _report(config.to, about, console, config.json)


def _search(arguments: list[str]) -> None:
    config: SearchConfig = _parse(SearchConfig, arguments, "search", "Find the texts of an index nearest to a query.")
    check_range("top_k", config.top_k, low=1)
    if not config.queries:
        raise UserError("nothing to look for: give a query.")
    about = _whole(config.of, config.where)
    load = _model_of(config.of, about, config.model)
    with cli.lean_imports():
        model = load()
    opened = Index(config.of, model.encode(probes.PROBES, **about.side("passage")))
    vectors = model.encode(list(config.queries), **about.side("query"))
    found = opened.search(vectors, top_k=config.top_k, threshold=config.threshold, where=config.where)
    console = cli.console()
    for query, answers in zip(config.queries, found, strict=True):
        shown = Table("cosine", "id", "text", *about.layout.metadata, title=query, title_justify="left")
        for answer in answers:
            values = ("" if value is None else str(value) for value in answer.metadata.values())
            shown.add_row(f"{answer.cosine:.3f}", answer.id, answer.text, *values)
        console.print(shown, markup=False)
    results = [
        {"query": query, "answers": [answer.to_dict() for answer in answers]}
        for query, answers in zip(config.queries, found, strict=True)
    ]
    cli.hand_over({"index": str(config.of), "results": results}, config.json)


def _info(arguments: list[str]) -> None:
    config: InfoConfig = _parse(InfoConfig, arguments, "info", "Say what an index is.")
    _report(config.of, index.read_about(config.of), cli.console(), config.json)


def _whole(directory: Path, where: str | None = None) -> About:
    """What an index is; complains of what is damaged, and of a filter, before a model is loaded."""
    opened = Index(directory)
    if where is not None:
        opened.check_filter(where)
    return opened.about


def _model_of(directory: Path, about: About, model: str | None) -> Callable[[], loading.Encodes]:
    """What loads the model that an index was made by: where it was then, or where it is now."""
    try:
        return loading.locate(model or about.model)
    except UserError as e:
        if model is not None:
            raise
        raise UserError(f"{directory}: was made by {about.model}; name it with `model` where it is now. {e}") from e


def _vectors(
    config: BuildConfig | AddConfig, records: Records, console: Console, of: About | None = None
) -> Callable[[Path], Stored]:
    """What makes the vectors of texts in a directory, or has them already; all complaints are made before.

    Args:
        config: What makes them, or where they are.
        records: The texts.
        console: Where progress is shown.
        of: The index to which they are added.
    """
    if config.vectors is not None:
        given = _given(config.vectors, records)
        return lambda _: given
    name = config.model or (of.model if of else "")
    if isinstance(config, BuildConfig):
        load = loading.locate(name, dim=config.dim)
    else:
        assert of is not None
        load = _model_of(config.to, of, config.model)

    def encode(work: Path) -> Stored:
        indexer = Indexer(load, name, batch_size=config.batch_size, console=console, dim=of and of.dim)
        place, side = work / "vectors", "passage"
        if of is not None:
            side = of.side("passage").get("prompt_name")
            index.check_model(config.to, of, indexer.fingerprint(side))
            # Of another file that was not added whole.
            if (place / vectors.ABOUT).is_file() and vectors.read_about(place).sha256 != records.texts_sha256:
                shutil.rmtree(work)
        texts = (record.text for record in records.read())
        indexer.encode(place, texts, records.count, records.texts_sha256, source=str(records.path), side=side)
        return Stored(place)

    return encode


def _given(directory: Path, records: Records) -> Stored:
    """Vectors that were made of these texts before."""
    made = Stored(directory)
    if made.about.dtype == "binary":
        raise UserError(
            f"`vectors` {directory}: binary, from which answers cannot be put in order. Encode as int8 or float32; "
            "with `bits` 1 the index is small all the same."
        )
    now = replace(made.about, rows=records.count, sha256=records.texts_sha256)
    vectors.check_texts(directory, made.about, now, str(records.path))
    return made


def _columns(layout: Layout) -> str:
    """What the columns are, for people."""
    named = [f"text in {layout.text}" if layout.text else "a text a line"]
    named.append(f"ids in {layout.id}" if layout.id else "numbered")
    return ", ".join([*named, *(f"{name} ({kind})" for name, kind in layout.metadata.items())])


def _report(directory: Path, about: About, console: Console, json: Path | None) -> None:
    """Shows what an index is; prints the same as JSON."""
    removed = sum(part.removed for part in about.segments)
    lines = {
        "texts": f"{about.count:,}" + (f"; removed, and still in the files: {removed:,}" if removed else ""),
        "index": f"{about.kind}, {about.bits} bits a number, {about.dim} numbers a vector",
        "columns": _columns(about.layout),
        "model": about.model + (", with its prompts" if about.prompts else ""),
        "on the disk": f"{about.bytes / 2**20:,.1f} MiB, segments: {len(about.segments)}",
    }
    shown = Table(title=str(directory), title_justify="left", show_header=False)
    for name, value in lines.items():
        shown.add_row(name, value)
    console.print(shown, markup=False)
    result = {
        "index": str(directory),
        "texts": about.count,
        "removed": removed,
        "kind": about.kind,
        "bits": about.bits,
        "dim": about.dim,
        "model": about.model,
        "prompts": about.prompts,
        "columns": asdict(about.layout),
        "segments": len(about.segments),
        "bytes": about.bytes,
    }
    cli.hand_over(result, json)


if __name__ == "__main__":
    cli.run(main)
