"""The models at hand, each loaded once, when first used.

They are versions of SavedModels and LiteRT models under `saved_models/`, and addresses of served models.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from simcse_tf.data.strings import PromptName
from simcse_tf.demo.kept import Kept
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation import pairs
from simcse_tf.serving.client import Client
from simcse_tf.serving.exported import about, model_file

# Models kept in memory; the one that was not used for the longest time goes first.
_KEPT = 8
BASE = "base"
# How the names of models begin that are there only to compare trained ones with.
_BEFORE = "before-"


class Reference(NamedTuple):
    """What this model gives for pairs whose answer is known, each sorted: the scale that a score is read on."""

    unrelated: np.ndarray
    same: np.ndarray

    def band(self, which: str) -> tuple[float, float]:
        """Where nine in ten pairs fall."""
        low, high = np.quantile(getattr(self, which), [0.05, 0.95])
        return float(low), float(high)

    def share_below(self, which: str, score: float) -> float:
        """The share of pairs that score lower, 0 to 1."""
        scores = getattr(self, which)
        return float(np.searchsorted(scores, score)) / len(scores)


class Model:
    """A loaded model.

    Args:
        key: Its name on the page: `quickstart/2`, `quickstart-int8` (a LiteRT model) or an address.
        where: Its directory or address.
    """

    def __init__(self, key: str, where: str):
        self.key = key
        self.client = Client(where)
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str], side: PromptName | None = None) -> np.ndarray:
        """`(len(texts), dim)` float32 of unit length; of the sides of a search with the model's prompts, if any."""
        prompt_name = None if side is None or side not in self.client.prompt_names else side
        return self.client.encode(list(texts), prompt_name=prompt_name)

    def reference(self) -> Reference:
        """The model's scale, measured on bundled pairs when first asked for."""
        with self._lock:
            return self._reference

    @cached_property
    def _reference(self) -> Reference:
        known = pairs.bundled()
        positive = np.flatnonzero(known.gold > 4)
        a = self.encode([known.a[i] for i in positive])
        b = self.encode([known.b[i] for i in positive])
        scores = a @ b.T
        # A sentence with the partners of others: those pairs have nothing to do with each other.
        unrelated = scores[~np.eye(len(scores), dtype=bool)]
        return Reference(np.sort(unrelated), np.sort(np.diag(scores)))

    def borrow(self) -> Client:
        """A client of its own over the same loaded model, for an index of its own."""
        return Client(_Borrowed(self))


class _Borrowed:
    def __init__(self, model: Model):
        self.name = model.client.name
        self.prompt_names = model.client.prompt_names
        self._client = model.client

    def encode_batch(self, texts: list[str], prompt_name: PromptName | None = None) -> np.ndarray:
        return self._client.encode(texts, batch_size=max(1, len(texts)), prompt_name=prompt_name)


class _Version(NamedTuple):
    where: str
    # When it was written: a version may be replaced under its number.
    stamp: int


class Start(NamedTuple):
    """What a model was trained from: a preset's name or a directory, and how its vectors were made from its tokens'."""

    preset: str
    pooling: str

    @property
    def name(self) -> str:
        """Under which it is exported."""
        return f"{_BEFORE}{Path(self.preset).name}-{self.pooling}"


class Registry:
    """Finds models anew at every look, loads each once.

    Args:
        root: `saved_models/`; need not exist yet.
        addresses: Models behind TF Serving.
    """

    def __init__(self, root: Path, addresses: Sequence[str] = ()):
        self.root = root
        self._addresses = tuple(addresses)
        self._loaded: Kept[Model] = Kept(_KEPT)

    def keys(self) -> list[str]:
        """Every model: addresses, then the others, last written first, each with its newest version first.

        Those that were exported to compare trained ones with come last.
        """
        found = self._find()
        newest: dict[str, int] = {}
        for key, version in found.items():
            name = _name(key)
            newest[name] = max(newest.get(name, 0), version.stamp)
        return sorted(
            found,
            key=lambda key: (
                key not in self._addresses,
                _name(key) == BASE or key.startswith(_BEFORE),
                -newest[_name(key)],
                _name(key),
                -_number(key),
            ),
        )

    def newest(self) -> list[str]:
        """The newest version of each model, in the order of `keys`."""
        first: dict[str, str] = {}
        for key in self.keys():
            first.setdefault(_name(key), key)
        return list(first.values())

    def directory(self, key: str) -> Path | None:
        """Where a version is on disk; None for an address.

        Raises:
            UserError: There is no such model.
        """
        where = self._version(key).where
        return None if key in self._addresses else Path(where)

    def start(self, key: str) -> Start | None:
        """What a model was trained from; None of one that was not, that does not say it, or at an address."""
        found = self._about(key).get("trained_from")
        return Start(**found) if found else None

    def untrained(self, start: Start) -> str | None:
        """The newest version of what a training began with; None if it is not here."""
        for key in self.keys():
            said = self._about(key)
            if "trained_from" not in said and (said.get("source"), said.get("pooling")) == start:
                return key
        return None

    def _about(self, key: str) -> dict[str, Any]:
        directory = self.directory(key)
        return about(directory) if directory else {}

    def model(self, key: str | None = None) -> Model:
        """Loads a model, or gives the one already loaded.

        Args:
            key: One of `keys`, or a name whose newest version is meant; by default the first.

        Raises:
            UserError: There is no such model, or it cannot be loaded.
        """
        if not key:
            keys = self.keys()
            if not keys:
                raise UserError(
                    f"no model in {self.root} yet. Train one (python -m simcse_tf.train), or export the base "
                    f"encoder: python -m simcse_tf.export minilm --to {self.root / BASE}"
                )
            key = keys[0]
        if not isinstance(key, str):
            raise UserError(f"model: expected a name, not {type(key).__name__}.")
        key = next((k for k in self.newest() if _name(k) == key), key)
        version = self._version(key)
        return self._loaded.get((key, version), lambda: Model(key, version.where))

    def _version(self, key: str) -> _Version:
        found = self._find()
        if key not in found:
            raise UserError(
                f"no model '{key:.100}'. {did_you_mean(key[:100], found) if found else 'There are none yet.'}"
            )
        return found[key]

    def _find(self) -> dict[str, _Version]:
        found = {address: _Version(address, 0) for address in self._addresses}
        versions = [path for path in self.root.glob("*/*") if path.name.isdecimal()]
        # What is being written has another name, with a dot, until it is whole.
        for directory in [*versions, *(path for path in self.root.glob("*") if path.name[0] != ".")]:
            if (graph := model_file(directory)) is not None:
                key = str(directory.relative_to(self.root))
                found[key] = _Version(str(directory), graph.stat().st_mtime_ns)
        return found


def _name(key: str) -> str:
    return key if "://" in key else key.rsplit("/", 1)[0]


def _number(key: str) -> int:
    """The version; 0 where there is but one."""
    return int(key.rsplit("/", 1)[1]) if "/" in key and "://" not in key else 0
