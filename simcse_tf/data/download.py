"""Corpora that may have to come over the network: SimCSE's own files, and TensorFlow Datasets.

Standard library only at module level; TensorFlow is imported when examples are read.
"""

from __future__ import annotations

import csv
import difflib
import http.client
import os
import queue
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_tf.errors import UserError, did_you_mean

# Seconds to wait for an answer before there is said to be no network.
_PATIENCE = 10.0
_OFFLINE = "Without a network: --data bundled, or --data FILE with text of your own"
_TFDS_BUCKET = "https://storage.googleapis.com/tfds-data"
_PRINCETON = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main"


@dataclass(frozen=True)
class Published:
    """A file that the SimCSE authors published: where it is, and how to know that it is whole."""

    url: str
    rows: int
    # Empty for one sentence a line.
    columns: tuple[str, ...] = ()


PUBLISHED = {
    "wiki1m": Published(f"{_PRINCETON}/wiki1m_for_simcse.txt", 1_000_000),
    "nli_for_simcse": Published(f"{_PRINCETON}/nli_for_simcse.csv", 275_601, ("sent0", "sent1", "hard_neg")),
}


def fetch(name: str) -> Path:
    """The path of a published file, downloaded on first use.

    It is kept in `$XDG_CACHE_HOME/simcse_tf` (`~/.cache/simcse_tf`), gets there by a rename, hence never half
    written, and its rows are counted on every call (0.2 s for a million lines): a copy put there by hand may be short.

    Args:
        name: A key of `PUBLISHED`.

    Raises:
        UserError: No network (said within `_PATIENCE` seconds), a broken download, a file with too many or too few
            rows, or a cache that cannot be written.
    """
    published = PUBLISHED[name]
    # The XDG specification: a relative path is to be ignored.
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = (cache_home if cache_home.is_absolute() else Path.home() / ".cache") / "simcse_tf"
    path = cache / published.url.rsplit("/", 1)[-1]
    if path.exists():
        found = _count_rows(path)
        if found != published.rows:
            raise UserError(f"{path}: expected {published.rows:,} rows, found {found:,}. Delete it and try again.")
        return path

    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache, suffix=path.suffix)
    except OSError as e:
        raise UserError(f"{cache}: cannot be written ({e.strerror}). Set XDG_CACHE_HOME to another folder.") from e
    try:
        with open(handle, "wb") as file, _connect(published.url) as response:
            print(f"Downloading {name} ({published.url}) to {path}", file=sys.stderr)
            shutil.copyfileobj(response, file, 1 << 20)
            # http.client ends a body that breaks off like one that is complete.
            promised = response.headers.get("Content-Length")
            if promised is not None and file.tell() != int(promised):
                raise ConnectionError(f"it broke off after {file.tell():,} of {int(promised):,} bytes")
        found = _count_rows(Path(temporary))
        if found != published.rows:
            raise ConnectionError(f"expected {published.rows:,} rows, found {found:,}")
        os.replace(temporary, path)
    except (OSError, http.client.HTTPException) as e:
        raise UserError(
            f"cannot download {name} from {published.url}: {e}. {_OFFLINE}; or copy that file to {path}."
        ) from e
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def examples(
    name: str, split: str, fields: tuple[str, ...], *, label: str | None = None, tfds_dir: Path | None = None
) -> Iterator[tuple[Any, ...]]:
    """Examples of a TFDS dataset in stored order, prepared (downloaded) on first use.

    Only the wanted features are decoded, and they come to Python in batches of 1,024: 19,000 to 31,000 examples a
    second on two busy cores, where one by one gave 3,500 to 4,800. Shards are read one after the other and nothing is
    cached, so that the order is the dataset's own and memory does not grow.

    Args:
        name: As TFDS writes it: `snli`, `glue/sst2`, `glue/sst2:2.0.0`.
        split: As TFDS writes it: `train`, `train[:10%]`.
        fields: Names of text features.
        label: Name of one more feature, an integer.
        tfds_dir: Where the dataset is or goes; TFDS's default if not given.

    Yields:
        One `bytes` for each field, then the label if it was asked for.

    Raises:
        UserError: Unknown dataset, split or field; or it has to be prepared and cannot be.
    """
    import tensorflow_datasets as tfds

    where = f"tfds:{name}"
    try:
        builder: Any = tfds.builder(name, data_dir=tfds_dir)
    except Exception as e:  # TFDS raises ValueError, AssertionError and its own for one and the same mistake.
        raise _unknown_dataset(name, tfds_dir, e) from e

    features = builder.info.features
    text = [f for f, feature in features.items() if feature.shape == () and feature.tf_dtype == "string"]
    for field in fields:
        if field not in text:
            wrong = "is not text" if field in features else "does not exist"
            raise UserError(f"{where}: field '{field}' {wrong}. {did_you_mean(field, text)}")
    if label is not None and label not in features:
        raise UserError(f"{where}: field '{label}' does not exist. {did_you_mean(label, features)}")

    if not builder.is_prepared():
        _prepare(builder, where)
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


def _prepare(builder: Any, where: str) -> None:
    # TFDS retries for minutes before it admits that there is no network, so ask for one of its files first.
    url = next(iter(builder.url_infos or ()), _TFDS_BUCKET)
    try:
        _connect(url).close()
    except urllib.error.HTTPError:
        pass  # An answer, hence a network: whether it is the right one is for TFDS to say.
    except (OSError, http.client.HTTPException) as e:
        raise UserError(
            f"{where} is not in {builder.data_dir} and cannot be downloaded: {url}: {e}. "
            f"{_OFFLINE}; or --tfds-dir with the folder that has it."
        ) from e
    try:
        builder.download_and_prepare()
    except Exception as e:  # Every dataset has its own script, which fails in its own way.
        raise UserError(f"{where}: TFDS cannot prepare it: {type(e).__name__}: {e}. {_OFFLINE}.") from e


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


def _connect(url: str) -> Any:
    """Opens a URL, giving up after `_PATIENCE` seconds in all.

    The socket's own timeout counts for each of a host's addresses and not for the look-up of its name.
    """
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_PATIENCE))
        except Exception as e:
            answers.put(e)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_PATIENCE)
    except queue.Empty:
        raise TimeoutError(f"no answer in {_PATIENCE:g} seconds") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _count_rows(path: Path) -> int:
    if path.suffix == ".txt":
        with open(path, "rb") as lines:
            return sum(1 for _ in lines)
    with open(path, encoding="utf-8", errors="replace", newline="") as lines:
        count = -1  # the header
        try:
            for row in csv.reader(lines):
                count += bool(row)
        except csv.Error:
            pass  # What is left uncounted makes the count wrong, which is what the caller looks for.
    return count
