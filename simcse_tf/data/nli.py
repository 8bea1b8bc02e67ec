"""Natural language inference rows -> the triplets of supervised SimCSE. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# TFDS's snli and multi_nli share these; -1 marks a pair without a gold label, 1 is neutral.
ENTAILMENT = 0
CONTRADICTION = 2


def triplets(rows: Iterable[tuple[str, str, int]]) -> Iterator[tuple[str, str, str]]:
    """Groups labelled pairs by premise, as section 4.2 of the SimCSE paper builds its training set.

    A premise gives one triplet: itself, its first entailment and its first contradiction, in the order of `rows`.
    A premise that lacks either gives none. Rows of one premise need not be neighbours, so every premise is held in
    memory with its two hypotheses: about 160 MB for a set of the size of SNLI and MultiNLI (280,000 premises of 100
    characters, hypotheses of 50). A triplet is yielded as soon as it is complete.

    Args:
        rows: `(premise, hypothesis, label)`; every label but `ENTAILMENT` and `CONTRADICTION` is left out.

    Yields:
        `(premise, entailment, contradiction)`: anchor, positive, hard negative.
    """
    entailments: dict[str, str] = {}
    contradictions: dict[str, str] = {}
    for premise, hypothesis, label in rows:
        if label == ENTAILMENT:
            same, other = entailments, contradictions
        elif label == CONTRADICTION:
            same, other = contradictions, entailments
        else:
            continue
        if premise in same:
            continue
        same[premise] = hypothesis
        if premise in other:
            yield premise, entailments[premise], contradictions[premise]
