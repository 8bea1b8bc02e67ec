"""TensorFlow Datasets: any text features as rows, SNLI and MultiNLI as triplets. Needs the extra `tfds`.

TensorFlow is imported when examples are read, not before.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from simcse_tf import network, quiet
from simcse_tf.checks import require
from simcse_tf.data.nli import CONTRADICTION, ENTAILMENT, triplets
from simcse_tf.data.published import OFFLINE
from simcse_tf.data.rows import BadTextError, Reject, Row, Rows, checked, decode, readable
from simcse_tf.errors import UserError, did_you_mean

PREFIX = "tfds:"
NLI = "tfds:snli+multi_nli"
_BUCKET = "https://storage.googleapis.com/tfds-data"


def find(spec: str, tfds_dir: Path | None) -> tuple[int, Callable[[Reject], Rows]]:
    """Understands a name, without TensorFlow; whether there is such a dataset is found when it is read.

    Args:
        spec: `tfds:NAME:SPLIT:FIELD[,FIELD...]` or `tfds:snli+multi_nli`.
        tfds_dir: Where TFDS keeps its data; its own default if not given.

    Returns:
        The number of texts in a row, and a function that yields the rows.

    Raises:
        UserError: It is neither; or the extra `tfds` is not installed.
    """
    # NAME may end in a version (":1.0.0") and SPLIT may be a slice ("train[:10%]").
    match = re.fullmatch(r"tfds:([^:]+(?::\d[\d.*]*)?):([^:\[\]]+(?:\[[^\]]*\][^:\[\]]*)*):([^:\[\]]+)", spec)
    fields = tuple(f.strip() for f in match[3].split(",")) if match else ()
    if spec != NLI and (match is None or not all(fields)):
        raise UserError(
            f"`data` {spec}: expected tfds:NAME:SPLIT:FIELD[,FIELD...], such as tfds:glue/sst2:train:sentence; or "
            f"{NLI}."
        )
    check_installed(spec)
    if match is None:
        return 3, partial(_nli_rows, tfds_dir)
    return len(fields), partial(_rows, spec, match[1], match[2], fields, tfds_dir)


def check_installed(what: str) -> None:
    """Checks for TFDS without importing it.

    Raises:
        UserError: It is not installed; names the extra.
    """
    # tensorflow-datasets 4.9.10 imports importlib_resources without declaring it.
    for module in ("tensorflow_datasets", "importlib_resources"):
        require(module, "tfds", f"{what} needs {module}")


def examples(
    name: str,
    split: str,
    fields: tuple[str, ...],
    *,
    label: str | None = None,
    tfds_dir: Path | str | None = None,
    offline: str = OFFLINE,
) -> Iterator[tuple[Any, ...]]:
    """Examples of a TFDS dataset in stored order, prepared (downloaded) on first use.

    Only the wanted features are decoded, and they come to Python in batches of 1,024: 19,000 to 31,000 examples a
    second on two busy cores, where one by one gave 3,500 to 4,800. Shards are read one after the other and nothing is
    cached, so that the order is the dataset's own and memory does not grow.

    Args:
        name: As TFDS writes it: `snli`, `glue/sst2`, `glue/sst2:2.0.0`.
        split: As TFDS writes it: `train`, `train[:10%]`.
        fields: Names of text features.
        label: Name of one more feature, a number.
        tfds_dir: Where the dataset is or goes; TFDS's default if not given.
        offline: What else can be done without a network, for messages.

    Yields:
        One `bytes` for each field, then the label if it was asked for.

    Raises:
        UserError: TFDS is not installed; unknown dataset, split or field; or it has to be prepared and cannot be.
    """
    where = f"{PREFIX}{name}"
    check_installed(where)
    # TFDS imports TensorFlow when it is first used.
    quiet.import_tensorflow()
    import tensorflow_datasets as tfds

    directory = None if tfds_dir is None else Path(tfds_dir)
    try:
        builder: Any = tfds.builder(name, data_dir=directory)
    except Exception as e:  # TFDS raises ValueError, AssertionError and its own for one and the same mistake.
        raise _unknown_dataset(name, directory, e) from e

    features = builder.info.features
    text = [f for f, feature in features.items() if feature.shape == () and feature.tf_dtype == "string"]
    for field in fields:
        if field not in text:
            wrong = "is not text" if field in features else "does not exist"
            raise UserError(f"{where}: field '{field}' {wrong}. {did_you_mean(field, text)}")
    if label is not None and label not in features:
        raise UserError(f"{where}: field '{label}' does not exist. {did_you_mean(label, features)}")

    if not builder.is_prepared():
        _prepare(builder, where, offline)
    try:
        builder.info.splits[split]
    except ValueError as e:
        raise UserError(f"{where}: split '{split}': {str(e).splitlines()[0]}") from e

    wanted = (*fields, label) if label is not None else fields
    dataset = builder.as_dataset(
        split=split,
        decoders=tfds.decode.PartialDecoding(dict.fromkeys(wanted, True)),
        read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
    )
    dataset = dataset.batch(1024).map(lambda batch: tuple(batch[f] for f in wanted)).prefetch(2)
    for batch in dataset.as_numpy_iterator():
        yield from zip(*(column.tolist() for column in batch), strict=True)


def _rows(spec: str, name: str, split: str, fields: tuple[str, ...], tfds_dir: Path | None, reject: Reject) -> Rows:
    number = 0
    for number, raw in enumerate(examples(name, split, fields, tfds_dir=tfds_dir), 1):
        row = _checked(f"{spec}, example {number}", raw, fields, reject)
        if row:
            yield row
    return f"{number} examples, {{bad}} bad"


def _nli_rows(tfds_dir: Path | None, reject: Reject) -> Rows:
    fields = ("premise", "hypothesis")
    number = 0

    def pairs() -> Iterator[tuple[str, str, int]]:
        nonlocal number
        for name in ("snli", "multi_nli"):
            for i, (*raw, label) in enumerate(examples(name, "train", fields, label="label", tfds_dir=tfds_dir), 1):
                number += 1
                if label in (ENTAILMENT, CONTRADICTION):
                    row = _checked(f"{PREFIX}{name}, train, example {i}", raw, fields, reject)
                    if row:
                        yield row[0], row[1], label

    yield from triplets(pairs())
    return f"{number} examples, {{bad}} bad, no premise with both an entailment and a contradiction"


def _checked(where: str, raw: Sequence[bytes], fields: tuple[str, ...], reject: Reject) -> Row | None:
    try:
        return checked((decode(cell) for cell in raw), fields)
    except BadTextError as e:
        reject(where, str(e), readable(b" ".join(raw)))
        return None


def _prepare(builder: Any, where: str, offline: str) -> None:
    # TFDS retries for minutes before it admits that there is no network, so ask for one of its files first.
    url = next(iter(builder.url_infos or ()), _BUCKET)
    try:
        network.check(url)
    except network.UnreachableError as e:
        raise UserError(
            f"{where} is not in {builder.data_dir} and cannot be downloaded: {url}: {e}. "
            f"{offline}; or set `tfds_dir` to the folder that has it."
        ) from e
    try:
        builder.download_and_prepare()
    except Exception as e:  # Every dataset has its own script, which fails in its own way.
        raise UserError(f"{where}: TFDS cannot prepare it: {type(e).__name__}: {e}. {offline}.") from e


def _unknown_dataset(name: str, tfds_dir: Path | None, cause: Exception) -> UserError:
    import tensorflow_datasets as tfds

    dataset, _, config = name.split(":", maxsplit=1)[0].partition("/")
    known = tfds.list_builders(with_community_datasets=False)
    stored = tfds_dir / dataset if tfds_dir else None
    if dataset not in known and not (stored and stored.is_dir()):
        local = [p.name for p in tfds_dir.iterdir() if p.is_dir()] if tfds_dir and tfds_dir.is_dir() else []
        near = difflib.get_close_matches(dataset, {*known, *local})
        hint = did_you_mean(dataset, near) if near else "See https://www.tensorflow.org/datasets/catalog."
        return UserError(f"tfds:{name}: unknown dataset '{dataset}'. {hint}")
    configs = tfds.builder_cls(dataset).builder_configs if dataset in known else _subfolders(stored)
    if config and config not in configs:
        return UserError(f"tfds:{name}: unknown configuration '{config}'. {did_you_mean(config, configs)}")
    return UserError(f"tfds:{name}: TFDS cannot load it: {str(cause).splitlines()[0]}")


def _subfolders(folder: Path | None) -> list[str]:
    return [p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."] if folder else []
