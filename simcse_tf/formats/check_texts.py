"""The texts by which an exported model is compared with the live one."""

from __future__ import annotations

from itertools import islice

from simcse_tf.data import sources

_ODD = ["", " ", "\U0001f600 caf\u00e9 na\u00efve \u65e5\u672c\u8a9e", "word " * 2000, "a\x00b"]


def plain_texts() -> list[str]:
    """16 bundled sentences."""
    return [row[0] for row in islice(sources.open_source("bundled").rows(), 16)]


def check_texts() -> list[str]:
    """Those, and 5 texts at which an encoder might stumble."""
    return plain_texts() + _ODD
