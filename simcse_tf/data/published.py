"""The training sets that the SimCSE authors published, downloaded on first use. Standard library only."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from simcse_tf import network
from simcse_tf.errors import UserError

_PRINCETON = "https://huggingface.co/datasets/princeton-nlp/datasets-for-simcse/resolve/main"
# What to do where there is no network, for messages.
OFFLINE = "Without a network, set `data` to bundled or to a text file"


@dataclass(frozen=True)
class Published:
    """A file that the SimCSE authors published: where it is, and how to know that it is complete."""

    url: str
    rows: int
    # None for one sentence a line.
    columns: tuple[str, ...] | None = None

    @property
    def file(self) -> Path:
        """Its name."""
        return Path(self.url.rsplit("/", 1)[-1])


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
        UserError: No network, a broken download, a file with too many or too few rows, or a cache that cannot be
            written.
    """
    published = PUBLISHED[name]
    # The XDG specification: a relative path is to be ignored.
    cache_home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = (cache_home if cache_home.is_absolute() else Path.home() / ".cache") / "simcse_tf"
    path = cache / published.file
    if path.exists():
        if problem := _wrong_count(path, published):
            raise UserError(f"{path}: {problem}. Delete it and try again.")
        return path

    try:
        cache.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache, suffix=path.suffix)
        os.close(handle)
    except OSError as e:
        raise UserError(f"{cache}: cannot be written ({e.strerror}). Set XDG_CACHE_HOME to another folder.") from e
    new = Path(temporary)
    try:
        print(f"Downloading {name} ({published.url}) to {path}", file=sys.stderr)
        network.download(published.url, new)
        problem = _wrong_count(new, published)
        if not problem:
            os.replace(new, path)
    except (network.UnreachableError, OSError) as e:
        problem = str(e)
    finally:
        new.unlink(missing_ok=True)
    if problem:
        raise UserError(
            f"cannot download {name} from {published.url}: {problem}. {OFFLINE}; or copy that file to {path}."
        )
    return path


def _wrong_count(path: Path, published: Published) -> str:
    found = _count_rows(path)
    return "" if found == published.rows else f"expected {published.rows:,} rows, found {found:,}"


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
