"""Development sets from files: which kind a file is, and the checks that its rows must pass. No TensorFlow.

| columns | kind |
|---|---|
| two texts and `score` or `grade` | graded |
| two texts and `label` (0 or 1) | labelled |
| three texts | triplets |
| two texts | retrieval: each left side a query, its right side the document to find, all right sides the corpus |
| PAIRS`+`DOCUMENTS | the same, with more documents from a second file |
| a directory with `corpus.jsonl`, `queries.jsonl` and `qrels/*.tsv` (BEIR's layout) | retrieval |
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simcse_tf.data import sources, tfds
from simcse_tf.data.columns import GRADES, LABELS, SEVERAL, SINGLE, check_columns, known_texts, only_text
from simcse_tf.data.rows import MISSING, BadTextError, Check, Row, checked, first_place, identifier, number, suffix
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation import pairs, sts
from simcse_tf.evaluation.development import DevelopmentSet, Graded, Labelled, Triplets
from simcse_tf.evaluation.retrieval import Retrieval

BUNDLED = "bundled"
TFDS = "tfds:glue/stsb"
# A part of the training data, which only a run has.
HELD_OUT = "held-out"
# General pairs, in whose place `sts_dir` puts STS-B's.
_GENERAL = (BUNDLED, TFDS)

_BEIR = "corpus.jsonl, queries.jsonl and qrels/*.tsv"


def find(
    specs: Sequence[DevelopmentSet | pairs.Pairs | Path | str],
    *,
    sts_dir: Path | None = None,
    tfds_dir: Path | str | None = None,
    columns: tuple[str, ...] = (),
    select_by: str | None = None,
    setting: str = "dev",
    held_out: DevelopmentSet | None = None,
) -> tuple[DevelopmentSet, ...]:
    """Reads and checks development sets; the one by which encoders are selected comes first.

    Args:
        specs: Each `bundled`, `tfds:glue/stsb`, or a file or directory as `open_development_set` takes it, also with
            its kind in front: `graded:FILE`, or its corpus behind: `PAIRS+DOCUMENTS`; or a set that is read already,
            graded pairs among them.
        sts_dir: SentEval's data directory. Its STS-B takes the place of the two names, or comes beside files.
        tfds_dir: Where TensorFlow Datasets keeps its data.
        columns: As `open_development_set`, of the files that have them all. A run's are those of its training data;
            others at least one file must have.
        select_by: The name of the set that selects; the first if not given.
        setting: What `specs` is called in messages.
        held_out: What `held-out` is; that is left out of `specs` if there is none.

    Raises:
        UserError: As `open_development_set`; an unknown name; two sets of one name; no set is called `select_by`; a
            set that is none of these.
    """
    found: list[DevelopmentSet] = []
    named: list[str] = []
    of_run = setting == "dev"
    paths = [_split(str(given)).path for given in specs if columns and isinstance(given, str | Path)]
    ignoring = of_run or any(_has(path, columns) for path in paths)
    for given in specs:
        if isinstance(given, DevelopmentSet | pairs.Pairs):
            found.append(Graded.of(given) if isinstance(given, pairs.Pairs) else given)
            continue
        if not isinstance(given, str | Path):
            raise UserError(
                f"`{setting}`: a {type(given).__name__} is not a development set. Expected the path of a file, or what "
                "open_development_set or load_pairs returns."
            )
        spec = str(given)
        if spec in named:
            continue
        named.append(spec)
        if spec == HELD_OUT and of_run:
            found += [held_out] if held_out else []
        elif spec in _GENERAL and sts_dir is not None:
            if not any(each.name == "STSB-dev" for each in found):
                found.append(Graded.of(sts.load("STSB-dev", sts_dir)))
        elif spec == BUNDLED:
            found.append(Graded.of(pairs.bundled()))
        elif spec == TFDS:
            tfds.check_installed(f"`{setting}` {spec}")
            load = _from_tfds(tfds_dir)
            found.append(Graded("STSB-dev", f"{TFDS}, validation", load, needs_tensorflow=True))
        else:
            kind, path, corpus = _split(spec)
            known = (*_GENERAL, HELD_OUT) if of_run else _GENERAL
            if not os.path.exists(path) and Path(path).name == path and not Path(path).suffix:
                raise UserError(
                    f"`{setting}` {spec}: neither a file nor a known name. {did_you_mean(spec, known)} "
                    f"Or the path of a .csv, .tsv or .jsonl file, or of a directory with {_BEIR}."
                )
            found.append(_open(Path(path), kind, columns, corpus, ignoring=ignoring))
    if sts_dir is not None and not set(named) & set(_GENERAL):
        found.append(Graded.of(sts.load("STSB-dev", sts_dir)))
    if not found:
        raise UserError(f"`{setting}`: name at least one development set.")
    names = {}
    for each in found:
        if each.name in names:
            raise UserError(
                f"`{setting}`: two development sets are called '{each.name}' ({names[each.name].source} and "
                f"{each.source}). A set from a file has the file's name: rename one."
            )
        names[each.name] = each
    if select_by is None:
        return tuple(found)
    if select_by not in names:
        raise UserError(f"`select_by` {select_by}: no development set has this name. {did_you_mean(select_by, names)}")
    judge = names.pop(select_by)
    return (judge, *names.values())


class _Spec(NamedTuple):
    """A development set as it is named: the kind in front of a path, the path, and the corpus behind it."""

    kind: str | None
    path: str
    corpus: Path | None


def _split(spec: str) -> _Spec:
    before, _, behind = spec.partition(":")
    kind, path = (before, behind) if before in _READERS else (None, spec)
    # A plus may also be a part of a name.
    plus = [] if os.path.exists(path) else [i for i, character in enumerate(path) if character == "+"]
    if not plus:
        return _Spec(kind, path, None)
    at = next((i for i in plus if os.path.exists(path[:i])), plus[-1])
    return _Spec(kind, path[:at], Path(path[at + 1 :]))


def _has(path: str, columns: tuple[str, ...]) -> bool:
    """Whether a path is that of a file with all of these columns."""
    form = sources.FORMATS.get(suffix(Path(path))) if os.path.isfile(path) else None
    return form is not None and form.columns is not None and set(columns) <= set(form.columns(Path(path)))


def open_development_set(
    path: Path | str, *, kind: str | None = None, columns: tuple[str, ...] = (), corpus: Path | str | None = None
) -> DevelopmentSet:
    """Reads a development set from a file, or from a directory in BEIR's layout.

    What kind it is, its columns say: two texts and `score` or `grade` are graded pairs, two texts and `label` are pairs
    labelled 0 or 1, three texts are triplets, and two texts are retrieval: each left side is a query, its right side
    the document to find, all right sides the corpus. A directory with `corpus.jsonl`, `queries.jsonl` and `qrels/` is
    retrieval too. Its judgements are `qrels/dev.tsv`, or the only file there; to choose another, name that file.

    Args:
        path: A .csv, .tsv or .jsonl file, also with .gz; the directory; or a file in its `qrels/`.
        kind: `graded`, `labelled`, `triplets` or `retrieval`, where the columns leave it open.
        columns: Names of the text columns of a file, where they are not the usual ones.
        corpus: A file with more documents among which the queries of a file of pairs should find theirs: a .txt file
            with one on each line, or a column `text` of the others.

    Returns:
        What `DevelopmentCallback` and `evaluate_encoder` take. Its `figures(encode)` are those of a function from a
        list of texts to vectors.

    Raises:
        UserError: It cannot be read, has no such columns, its kind is not clear, a row is wrong, or a figure would be
            undefined, for example because every grade is the same; names file and line.
    """
    return _open(Path(path), kind, columns, None if corpus is None else Path(corpus), ignoring=False)


def _open(
    path: Path, kind: str | None, columns: tuple[str, ...], corpus: Path | None, *, ignoring: bool
) -> DevelopmentSet:
    """As `open_development_set`; `ignoring` columns that the file has not all of."""
    if kind is not None and kind not in _READERS:
        raise UserError(f"`kind` {kind}: unknown. {did_you_mean(kind, _READERS)}")
    # Of a name that is too long, Path's own methods raise.
    judged = path.parent.name == "qrels" and path.suffix == ".tsv" and os.path.isfile(path)
    if judged or os.path.isdir(path):
        if kind not in (None, "retrieval"):
            raise UserError(f"{path}: a directory is retrieval, not {kind}.")
        if corpus is not None:
            raise UserError(f"{path}+{corpus}: a directory in BEIR's layout has its corpus in it. Omit +{corpus}.")
        return _read_beir(path.parent.parent, path) if judged else _read_beir(path, None)
    layout = _recognise(path, kind, columns, ignoring=ignoring)
    if corpus is None:
        return _READERS[layout.kind](layout)
    if layout.kind != "retrieval":
        raise UserError(
            f"{path}+{corpus}: {layout.kind} sets have no corpus. Omit +{corpus}; or write retrieval: before the name, "
            "if each left side should find its right side."
        )
    return _retrieval(layout, _documents(corpus))


@dataclass(frozen=True)
class _Layout:
    """What the columns of a file are."""

    path: Path
    kind: str
    texts: Row
    # The column of grades or labels, if the kind has one.
    value: Row
    # Columns that would make a row one of another kind than the first, and that no row of JSON lines may have then.
    absent: Row

    @property
    def name(self) -> str:
        return self.path.name.removesuffix(".gz").rpartition(".")[0]

    def read(self, valid: Callable[[float], bool] = math.isfinite, expected: str = "") -> list[tuple[Any, ...]]:
        """The rows: the texts, and the number where there is one."""

        def check(cells: Iterable[object], columns: Row) -> tuple[Any, ...]:
            cells = list(cells)
            texts = checked(cells[: len(self.texts)], self.texts)
            for name, cell in zip(self.absent, cells[len(self.texts) + len(self.value) :], strict=True):
                if cell is not MISSING:
                    raise BadTextError(f"has '{name}', which the first row does not have")
            values = cells[len(self.texts) :]
            return (*texts, *(number(values[0], name, valid, expected) for name in self.value))

        return _read(self.path, (*self.texts, *self.value, *self.absent), check)

    def first_line(self) -> str:
        """Where the first row is."""
        return _where(self.path, self.texts, lambda cells: True)


def _recognise(path: Path, kind: str | None, columns: tuple[str, ...], *, ignoring: bool) -> _Layout:
    form = sources.file_format(
        path, otherwise=f"A development set is a .csv, .tsv or .jsonl file, or a directory with {_BEIR}."
    )
    if form.columns is None:
        raise UserError(
            f"{path}: single sentences are not a development set. Expected a .csv, .tsv or .jsonl file with columns: "
            "two texts, with a score or a label where there is one, or three."
        )
    names = form.columns(path)
    if ignoring and not set(columns) <= set(names):
        columns = ()
    values = [name for name in names if name in (*GRADES, *LABELS)]
    texts, guessed = _texts(names, values, columns, takes_all=form.takes_all)
    check_columns(f"{path}:1", names, (*texts, *values), "2 or 3")
    # With its kind given, the column after two unknown texts is the number.
    if kind in ("graded", "labelled") and not values and len(texts) == 3:
        values, texts = [texts[2]], texts[:2]
    found = f"its columns are {', '.join(names)}"
    if len(texts) < 2:
        raise UserError(
            f"{path}:1: two or three columns of text are needed, and {found}. Rename those that are the text to "
            "anchor, positive and negative, or to sentence1 and sentence2; or set `columns`."
        )
    if guessed and values and len(texts) == 3 and kind in (None, "graded", "labelled"):
        raise UserError(
            f"{path}:1: which two of the columns {', '.join(texts)} are the texts? Name them with `columns`; {found}."
        )
    if kind is None and len(values) + len(texts[2:]) > 1:
        mixed = " and ".join([*values, *texts[2:]])
        raise UserError(
            f"{path}:1: mixed columns: {found}, and {mixed} belong to development sets of different kinds. Write the "
            f"kind before the file's name, such as {_kind(values, texts)}:{path.name}."
        )
    given, kind = kind is not None, kind or _kind(values, texts)
    if kind in ("graded", "labelled") and not values:
        expected = "label" if kind == "labelled" else "score"
        raise UserError(f"{path}:1: {kind} pairs need a column {expected}, and {found}.")
    if kind == "triplets" and len(texts) < 3:
        raise UserError(f"{path}:1: triplets need three columns of text, and {found}.")
    used = texts if kind == "triplets" else texts[:2]
    # Of several, the one that is called as the kind's is.
    usual = {"graded": GRADES, "labelled": LABELS}.get(kind, ())
    value = tuple(sorted(values, key=lambda name: name not in usual)[:1]) if usual else ()
    third = {name for _, _, *negative in SEVERAL for each in negative for name in (each, f"{each}_1")}
    absent = () if form.takes_all or given else tuple(sorted({*GRADES, *LABELS, *third} - set(names)))
    return _Layout(path, kind, used, value, absent)


def _kind(values: Sequence[str], texts: Row) -> str:
    """The kind that columns speak for."""
    if values:
        return "labelled" if values[0] in LABELS else "graded"
    return "triplets" if len(texts) == 3 else "retrieval"


def _texts(names: list[str], values: list[str], columns: tuple[str, ...], *, takes_all: bool) -> tuple[Row, bool]:
    """The text columns among `names`: the ones given, else known ones, else all of a table that has no more than 3.

    Returns:
        The columns, of several hard negatives the first, and whether that they are texts is a guess.
    """
    if columns:
        return tuple(name for name in columns if name not in values)[:3], False
    if known := known_texts(names):
        return known[:3], False
    rest = tuple(name for name in names if name not in values)
    return (rest, True) if takes_all and len(rest) <= 3 and not set(SINGLE) & set(rest) else ((), False)


def _graded(layout: _Layout) -> DevelopmentSet:
    a, b, grades = _columns(layout.read())
    gold = np.array(grades)
    if np.ptp(gold) == 0:
        raise UserError(
            f"{layout.first_line()}: the {layout.value[0]} of this and of every other pair is {gold[0]:g}: no "
            "correlation is defined. Expected grades that differ."
        )
    name = layout.name
    return Graded.of(pairs.Pairs(name, a, b, gold, {name: slice(0, len(gold))}, str(layout.path)))


def _labelled(layout: _Layout) -> DevelopmentSet:
    grades = "" if layout.value[0] in GRADES else "; if these are grades, write graded: before the file's name"
    a, b, labels = _columns(layout.read(lambda value: value in (0, 1), f"0 or 1{grades}"))
    if len(set(labels)) == 1:
        raise UserError(
            f"{layout.first_line()}: the {layout.value[0]} of this and of every other pair is {labels[0]:g}: there is "
            "nothing to tell apart. Expected pairs of both labels."
        )
    return Labelled(layout.name, str(layout.path), a, b, labels)


def _triplets(layout: _Layout) -> DevelopmentSet:
    return Triplets(layout.name, str(layout.path), *_columns(layout.read()))


def _retrieval(layout: _Layout, others: Sequence[str] = ()) -> DevelopmentSet:
    found = Retrieval.from_pairs(layout.name, str(layout.path), layout.read(), others)
    _check_corpus(found, layout.first_line)
    return found


def _documents(corpus: Path) -> list[str]:
    """The texts of a file with one in each row."""
    form = sources.file_format(corpus, otherwise="After the + comes a file of documents, one on each line or row.")
    names = form.columns(corpus) if form.columns else None
    columns = only_text(f"{corpus}:1", names, "Name it text, or give a .txt file with one document on each line.")
    return [text for (text,) in _read(corpus, columns, lambda cells, columns: checked(cells, columns))]


_READERS: dict[str, Callable[[_Layout], DevelopmentSet]] = {
    "graded": _graded,
    "labelled": _labelled,
    "triplets": _triplets,
    "retrieval": _retrieval,
}


def _read_beir(directory: Path, qrels: Path | None) -> Retrieval:
    """Reads queries, documents and judgements in BEIR's layout.

    A document's title stands before its text. Queries without judgements in the file are those of another split and are
    left out. A document that has a query's number and its text is the query itself, and is no answer to it, unless it
    is judged relevant.
    """
    corpus, asked = _beir_file(directory, "corpus.jsonl"), _beir_file(directory, "queries.jsonl")
    name = directory.resolve().name if qrels is None else f"{directory.resolve().name}-{qrels.stem}"
    qrels = qrels or _choose_qrels(directory)

    queries: dict[str, str] = {}

    def query(cells: Iterable[object], columns: Row) -> None:
        name, text = cells
        key = identifier(name, "_id")
        if key in queries:
            raise BadTextError(f"the _id {key} has occurred before")
        (queries[key],) = checked((text,), ("text",))

    _read(asked, ("_id", "text"), query)

    documents: dict[str, int] = {}
    # Queries that are in the corpus under their own number.
    repeated: set[str] = set()

    def document(cells: Iterable[object], columns: Row) -> str:
        name, title, text = cells
        title = "" if title in (MISSING, None) else title
        # A document may be empty, as some of BEIR's are.
        for column, cell in (("title", title), ("text", text)):
            if not isinstance(cell, str):
                raise BadTextError(f"no '{column}'" if cell is MISSING else f"'{column}' is not a string")
        key = identifier(name, "_id")
        if key in documents:
            raise BadTextError(f"the _id {key} has occurred before")
        documents[key] = len(documents)
        if queries.get(key) == _valid(text).strip():
            repeated.add(key)
        return _valid(f"{title} {text}".strip())

    texts = _read(corpus, ("_id", "title", "text"), document)
    judged: dict[str, dict[int, float]] = {}

    def judgement(cells: Iterable[object], columns: Row) -> None:
        query_id, corpus_id, score = cells
        query_id, corpus_id = identifier(query_id, "query-id"), identifier(corpus_id, "corpus-id")
        for column, key, known, file in (
            ("query-id", query_id, queries, asked),
            ("corpus-id", corpus_id, documents, corpus),
        ):
            if key not in known:
                raise BadTextError(f"the {column} {key} is not in {file}")
        grade = number(score, "score")
        judged.setdefault(query_id, {})
        if grade > 0:
            judged[query_id][documents[corpus_id]] = grade

    _check_header(qrels)
    _read(qrels, ("query-id", "corpus-id", "score"), judgement)
    for key, found in judged.items():
        if not found:
            where = _where(qrels, ("query-id",), lambda cells, key=key: str(cells[0]).strip() == key)
            raise UserError(
                f"{where}: the query {key} has no relevant document: none of its scores in this file is above 0. Judge "
                "a document relevant, or leave the query out."
            )
    itself = {}
    for i, key in enumerate(judged):
        if key in repeated and documents[key] not in judged[key]:
            itself[i] = documents[key]
    found = Retrieval(name, str(qrels), [queries[key] for key in judged], texts, list(judged.values()), itself)
    _check_corpus(found, lambda: f"{corpus}:1")
    return found


def _beir_file(directory: Path, name: str) -> Path:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            sources.file_format(path, otherwise="")
            return path
    raise UserError(f"{directory / name}: not found. Expected BEIR's layout: {_BEIR}.")


def _choose_qrels(directory: Path) -> Path:
    there = sorted((directory / "qrels").glob("*.tsv"))
    if not there:
        raise UserError(f"{directory / 'qrels'}: no .tsv file there. Expected BEIR's layout: {_BEIR}.")
    chosen = there if len(there) == 1 else [path for path in there if path.stem == "dev"]
    if not chosen:
        names = " or ".join(map(str, there))
        raise UserError(f"{directory}: which of its judgements? Name one of the files instead: {names}.")
    return chosen[0]


def _check_header(qrels: Path) -> None:
    form = sources.file_format(qrels, otherwise="")
    assert form.columns is not None
    names, expected = form.columns(qrels), ["query-id", "corpus-id", "score"]
    if names[:3] != expected:
        raise UserError(
            f"{qrels}:1: expected the header {', '.join(expected)}, separated by tabs, found {', '.join(names)}."
        )


def _check_corpus(found: Retrieval, where: Callable[[], str]) -> None:
    if len(set(found.documents)) < 2:
        raise UserError(f"{where()}: the corpus is one document, which every query finds. Expected several.")


def _read(path: Path, columns: Row, check: Check) -> list[Any]:
    """The rows that `check` makes of the cells.

    Raises:
        UserError: `check` refuses a row (names file and line), or there is none.
    """

    def reject(place: str, problem: str, text: str) -> None:
        raise UserError(f'{place}: {problem}; the row starts "{text}". Correct it.')

    rows = list(sources.FORMATS[suffix(path)].rows(path, columns, reject, check))
    if not rows:
        raise UserError(f"{path}:1: no rows. Expected a development set.")
    return rows


def _where(path: Path, columns: Row, found: Callable[[list[object]], bool]) -> str:
    """The place of the first row with such cells, as FILE:LINE; for a message."""
    return first_place(partial(sources.FORMATS[suffix(path)].rows, path), columns, found)


def _columns(rows: list[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _valid(text: str) -> str:
    # A lone surrogate, which JSON can spell, is a character that UTF-8 has no bytes for.
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _from_tfds(tfds_dir: Path | str | None) -> Callable[[], pairs.Pairs]:
    return lambda: pairs.from_tfds(tfds_dir)
