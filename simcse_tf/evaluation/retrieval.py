"""Retrieval: does each query find its documents among all of them?

The figures are those of trec_eval: recall@k is the part of a query's relevant documents among its first k answers,
MRR@10 one over the rank of the first relevant one (0 if it is beyond 10), nDCG@10 the gain of the first 10 answers,
each grade divided by log2(rank + 1), over the highest that any order gives. Each is a mean over the queries.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from simcse_tf.evaluation.development import DevelopmentSet, Figures, Scored, Scoring
from simcse_tf.evaluation.embedding import check, unit

_DEEPEST = 10
# A block of similarities takes 32 MB, and the vectors of a block of documents are all that is kept of them.
_DOCUMENTS = 4096
_QUERIES = 1024


class Retrieval(DevelopmentSet):
    """Queries, and the documents among which each should find its own.

    Documents are ranked by cosine similarity. Of equally similar ones the earlier in the corpus comes first; copies of
    a text stand together, at the place of the first. Memory does not grow with documents times queries: documents are
    embedded in blocks, and of each block only what belongs to a query's first answers is kept. A model with prompts
    encodes queries with its query prompt and documents with its passage prompt.

    Args:
        name: As the attribute.
        source: As the attribute.
        queries: `n` texts.
        documents: The corpus.
        relevant: For each query its relevant documents, at least one, by their place in the corpus, with a grade above
            0.
        itself: For a query the document that is the query, and is no answer to it.
    """

    kind = "retrieval"
    labels: ClassVar = {
        "ndcg@10": "nDCG@10 x 100",
        "mrr@10": "MRR@10 x 100",
        "recall@1": "recall@1 x 100",
        "recall@5": "recall@5 x 100",
        "recall@10": "recall@10 x 100",
    }

    def __init__(
        self,
        name: str,
        source: str,
        queries: list[str],
        documents: list[str],
        relevant: Sequence[Mapping[int, float]],
        itself: Mapping[int, int] | None = None,
    ):
        self.name, self.source = name, source
        self.queries, self.documents, self.relevant = queries, documents, relevant
        self.itself = itself or {}

    @classmethod
    def from_pairs(
        cls, name: str, source: str, pairs: Sequence[Sequence[str]], others: Iterable[str] = ()
    ) -> Retrieval:
        """Each left side is a query, its right side the document that it should find, all other texts the corpus.

        A left side that occurs with several right sides is one query with several relevant documents; a right side that
        occurs several times is one document. A query that is also a document is no answer to itself, unless it stands
        on its own right.

        Args:
            name: As the attribute.
            source: As the attribute.
            pairs: Left and right side, and hard negatives if there are any, which are documents too.
            others: More documents.
        """
        queries = {text: i for i, text in enumerate(dict.fromkeys(pair[0] for pair in pairs))}
        texts = itertools.chain((pair[1] for pair in pairs), *(pair[2:] for pair in pairs), others)
        documents = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        relevant: list[dict[int, float]] = [{} for _ in queries]
        for pair in pairs:
            relevant[queries[pair[0]]][documents[pair[1]]] = 1.0
        itself = {
            i: documents[text]
            for text, i in queries.items()
            if text in documents and documents[text] not in relevant[i]
        }
        return cls(name, source, list(queries), list(documents), relevant, itself)

    @property
    def size(self) -> str:
        return f"{len(self.queries):,} queries, {len(self.documents):,} documents"

    def content(self) -> Iterator[str | np.ndarray]:
        yield from ("\0".join(self.queries), "\0".join(self.documents))
        yield np.array([(i, j, grade) for i, own in enumerate(self.relevant) for j, grade in sorted(own.items())])
        yield np.array(sorted(self.itself.items()), int)

    @cached_property
    def _copies(self) -> dict[str, list[int]]:
        """Each distinct document, and its places in the corpus."""
        copies: dict[str, list[int]] = {}
        for i, text in enumerate(self.documents):
            copies.setdefault(text, []).append(i)
        return copies

    def scoring(self) -> Scoring:
        queries = unit(check((yield self.queries, "query"), self.queries, self.name), self.queries, self.name)
        copies = self._copies
        texts = list(copies)
        # One more than is counted: the query itself may be among them.
        best = _Best(len(queries), _DEEPEST + 1)
        for start in range(0, len(texts), _DOCUMENTS):
            block = texts[start : start + _DOCUMENTS]
            best.add(queries, unit(check((yield block, "passage"), block, self.name), block, self.name))
        answers = []
        for i, places in enumerate(best.places.tolist()):
            found = [j for place in places if place >= 0 for j in copies[texts[place]] if j != self.itself.get(i)]
            answers.append(found[:_DEEPEST] + [-1] * (_DEEPEST - len(found)))
        return Scored(retrieval_figures(answers, self.relevant), np.array(answers))

    def of_samples(self, answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        values = self._of_each_query(answers)
        return lambda samples: 100 * values[samples].mean(axis=1)

    def gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return self._of_each_query(after) - self._of_each_query(before)

    def _of_each_query(self, answers: np.ndarray) -> np.ndarray:
        """The headline of each query, from 0 to 1."""
        return _of_each_query(answers.tolist(), self.relevant)[self.headline]

    def close_pairs(self) -> list[tuple[str, str]]:
        best = [max(own, key=own.__getitem__) for own in self.relevant]
        return [(query, self.documents[document]) for query, document in zip(self.queries, best, strict=True)]

    def rank(self, query: int, answers: np.ndarray) -> int | None:
        """At which place a query found the first of its documents; None if it is beyond the tenth.

        Args:
            query: Its number.
            answers: As in `Scored`.
        """
        places = [
            place for place, document in enumerate(answers[query].tolist(), 1) if document in self.relevant[query]
        ]
        return places[0] if places else None


class _Best:
    """The most similar documents of each query so far, in order: `places` `(queries, depth)`, -1 for none."""

    def __init__(self, queries: int, depth: int):
        self.places = np.full((queries, depth), -1)
        self._scores = np.full((queries, depth), -np.inf)
        self._seen = 0

    def add(self, queries: np.ndarray, documents: np.ndarray) -> None:
        """Takes in the next documents.

        Args:
            queries: `(queries, dim)` of unit length.
            documents: `(n, dim)` likewise.
        """
        new = np.arange(self._seen, self._seen + len(documents))
        for start in range(0, len(queries), _QUERIES):
            at = slice(start, start + _QUERIES)
            # The last bits of a cosine depend on where in the product it stands.
            cosines = np.round(queries[at] @ documents.T, 12)
            scores = np.concatenate([self._scores[at], cosines], axis=1)
            places = np.concatenate([self.places[at], np.broadcast_to(new, cosines.shape)], axis=1)
            top = _first(scores, self.places.shape[1])
            self._scores[at] = np.take_along_axis(scores, top, axis=1)
            self.places[at] = np.take_along_axis(places, top, axis=1)
        self._seen += len(documents)


def _first(scores: np.ndarray, depth: int) -> np.ndarray:
    """Columns `(rows, depth)` of the highest scores of each row, from the highest; of equal ones the leftmost first.

    A full sort of every row would say the same, in ten times the time.
    """
    lowest = np.partition(scores, -depth, axis=1)[:, -depth]
    row, column = np.nonzero(scores >= lowest[:, None])
    order = np.lexsort((column, -scores[row, column], row))
    start = np.searchsorted(row, np.arange(len(scores)))
    return column[order][start[:, None] + np.arange(depth)]


def retrieval_figures(answers: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, float]]) -> Figures:
    """Recall, MRR and nDCG, means over queries x 100.

    Args:
        answers: The first documents of each query, in order; 10, or all and perhaps -1 if there are fewer.
        relevant: The relevant documents of each query with their grades, above 0.
    """
    return {name: 100 * float(np.mean(values)) for name, values in _of_each_query(answers, relevant).items()}


def _of_each_query(answers: Sequence[Sequence[int]], relevant: Sequence[Mapping[int, float]]) -> dict[str, np.ndarray]:
    """The figures of each query, `(queries,)`, from 0 to 1."""
    discounts = 1 / np.log2(np.arange(2, _DEEPEST + 2))
    rows = []
    for found, grades in zip(answers, relevant, strict=True):
        gains = np.array([grades.get(document, 0.0) for document in found])
        ideal = np.array(sorted(grades.values(), reverse=True)[:_DEEPEST])
        hits = np.flatnonzero(gains > 0)
        rows.append(
            {
                "ndcg@10": gains @ discounts[: len(gains)] / (ideal @ discounts[: len(ideal)]),
                "mrr@10": 1 / (hits[0] + 1) if hits.size else 0.0,
                **{f"recall@{k}": np.sum(hits < k) / len(grades) for k in (1, 5, 10)},
            }
        )
    return {name: np.array([row[name] for row in rows]) for name in Retrieval.labels}
