"""Texts as an encoder takes them: checked, and in batches of like length; and what makes two of them the same.

Standard library only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from typing import Literal, get_args

from simcse_tf.checks import check_choice
from simcse_tf.errors import UserError

# The two sides of a search. An encoder may have a prompt for each.
PromptName = Literal["query", "passage"]
PROMPT_NAMES: tuple[PromptName, ...] = get_args(PromptName)


def check_prompt_name(prompt_name: str, known: Collection[str]) -> None:
    """Checks that a model has a prompt of a name.

    Args:
        prompt_name: The name.
        known: The names that the model has: both or none.

    Raises:
        UserError: There is no such name, or the model has no prompts.
    """
    check_choice("prompt_name", prompt_name, PROMPT_NAMES)
    if prompt_name not in known:
        raise UserError(
            f"`prompt_name` {prompt_name}: this model has no prompts. Omit `prompt_name`, or train a model with "
            "`query_prompt` and `passage_prompt`."
        )


def valid_texts(texts: Sequence[str], batch_size: int) -> list[str]:
    """The texts, each of them valid Unicode.

    Raises:
        UserError: An element is not a string, or the batch size is less than 1.
    """
    if batch_size < 1:
        raise UserError(f"`batch_size` {batch_size}: must be at least 1.")
    return [_valid(i, text) for i, text in enumerate(texts)]


def batches_by_length(texts: Sequence[str], batch_size: int) -> Iterator[list[int]]:
    """Cuts texts into batches of like length, so that a batch has little padding.

    Yields:
        The places in `texts` of each batch's texts.
    """
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), batch_size):
        yield by_length[start : start + batch_size]


def folded(text: str) -> int:
    """A number of 64 bits that is the same for texts that differ in nothing but case and spacing."""
    return int.from_bytes(hashlib.blake2b(" ".join(text.casefold().split()).encode(), digest_size=8).digest(), "little")


def _valid(i: int, text: str) -> str:
    if not isinstance(text, str):
        raise UserError(f"text {i} is of type {type(text).__name__}, not a string: {text!r:.80}")
    # A lone surrogate is a character that UTF-8 has no bytes for.
    return text.encode("utf-8", "replace").decode()
