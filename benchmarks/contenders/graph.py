"""What encoders have in common that are a graph from token ids to unit vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.contenders import common
from benchmarks.workers import Turns

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Encoder(ABC):
    """Texts to unit vectors with Hugging Face's tokenizer and an exported graph."""

    def __init__(self, settings: dict[str, Any]):
        self._tokenizer = Tokenizer.from_file(str(Path(settings["model"]) / "tokenizer.json"))
        self._tokenizer.enable_truncation(common.LONGEST_ENCODED)
        self._tokenizer.enable_padding()

    @abstractmethod
    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """The graph: `INPUTS`, int64 `[n, length]`, to float32 `[n, dim]`."""

    def call(self, texts: list[str]) -> np.ndarray:
        """One call of the model."""
        tokens = self._tokenizer.encode_batch(texts)
        columns = ([t.ids for t in tokens], [t.attention_mask for t in tokens], [t.type_ids for t in tokens])
        return self.run({name: np.array(column, "int64") for name, column in zip(INPUTS, columns, strict=True)})

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Any number of texts; texts of like length go together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        vectors = np.concatenate([self.call([texts[i] for i in batch]) for batch in batches])
        return vectors[np.argsort(order)]


def serve(turns: Turns, settings: dict[str, Any], encoder: Encoder) -> None:
    """Throughput in sorted batches, and single calls."""
    turns.serve(common.encoding(lambda texts: encoder.encode(texts, settings["batch_size"]), encoder.call))
