"""Development sets: what an encoder is judged on while it is trained, and by `evaluate` afterwards.

A development set has a name and turns an encoder into a dictionary of figures. One of them, the headline, says which of
two encoders is the better one. There are four kinds: graded pairs, labelled pairs, triplets, and retrieval
(`simcse_tf.evaluation.retrieval`). `simcse_tf.evaluation.development_files` reads them. Everything but the threshold,
alignment and uniformity is x 100.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np

from simcse_tf.data.strings import PromptName
from simcse_tf.evaluation import geometry, sts
from simcse_tf.evaluation.embedding import Encode, check, unit, with_prompts
from simcse_tf.evaluation.pairs import Pairs

Figures = dict[str, float]


class Scored(NamedTuple):
    """How an encoder does on a development set.

    Attributes:
        figures: By name, the headline's among them.
        answers: What each item (pair, triplet or query) got, from which the headline can be computed again: `(n,)`
            cosines of pairs; `(n, 2)` of triplets, of the positive and of the negative; `(n, 10)` the first documents
            of queries by their place in the corpus, -1 where there are fewer.
    """

    figures: Figures
    answers: np.ndarray


# Texts, and the side of a search that they are on; None where there is none.
Asked = tuple[list[str], PromptName | None]
# Asks for the vectors of texts, as often as it likes, and returns what comes of them.
Scoring = Generator[Asked, Any, Scored]


class DevelopmentSet(ABC):
    """What an encoder is judged on.

    Attributes:
        kind: `graded`, `labelled`, `triplets` or `retrieval`.
        labels: What people call each figure; the first is the headline's, of which more is better.
        name: What its figures are logged under: of a file, its name without the suffix; of a directory in BEIR's
            layout, the directory's, and the split's if it was named; `STSB-dev` of STS-B; `bundled`; `held-out`.
        source: Where it was read from.
        needs_tensorflow: It is read when it is first used, and that imports TensorFlow.
    """

    kind: ClassVar[str]
    labels: ClassVar[dict[str, str]]
    name: str
    source: str
    needs_tensorflow = False

    @property
    def headline(self) -> str:
        """The figure by which encoders are compared."""
        return next(iter(self.labels))

    @property
    @abstractmethod
    def size(self) -> str:
        """How much there is of it, for people."""

    @abstractmethod
    def content(self) -> Iterator[str | np.ndarray]:
        """Everything that figures depend on, in order, for a fingerprint."""

    @abstractmethod
    def scoring(self) -> Scoring:
        """A generator that yields texts with their side, is sent their vectors `(n, dim)`, and returns a `Scored`.

        Raises:
            UserError: A vector is missing, not finite or of length 0, or a figure is undefined; names the set.
        """

    @abstractmethod
    def of_samples(self, answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The headline of samples of the items, for bootstrap intervals.

        Args:
            answers: As in `Scored`.

        Returns:
            A function from `(samples, n)` int, the items of each sample, any of them several times, to `(samples,)`
            float; NaN where it is undefined.
        """

    @abstractmethod
    def gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """How much better each item's answer became: `(n,)` float, negative if it became worse.

        Args:
            before: Answers of one encoder, as in `Scored`.
            after: Those of another.
        """

    @abstractmethod
    def close_pairs(self) -> list[tuple[str, str]]:
        """Pairs of texts that should be close."""

    def figures(self, encode: Encode) -> Figures:
        """How an encoder does: figures by name, the headline's among them.

        Args:
            encode: Texts to their vectors `(n, dim)`. If it is a method of a model with prompts, such as
                `model.encode`, retrieval asks for queries and documents with their prompts; all else is without.

        Raises:
            UserError: As `scoring`.
        """
        return self.score(encode).figures

    def score(self, encode: Encode) -> Scored:
        """As `figures`, with the answers.

        Raises:
            UserError: As `scoring`.
        """
        ask = with_prompts(encode)
        return self._score(lambda texts, side: [ask(texts, side)], 1)[0]

    def score_each(self, encode: Callable[[list[str]], Sequence[Any]], encoders: int) -> list[Scored]:
        """As `score`, for several encoders that encode together.

        Args:
            encode: Texts to the vectors `(n, dim)` of each encoder; a method of a model, or a function, as there.
            encoders: How many there are.

        Raises:
            UserError: As `scoring`.
        """
        return self._score(with_prompts(encode), encoders)

    def score_sizes(self, encode: Encode, sizes: Sequence[int]) -> list[Scored]:
        """As `score`, and once more for the first so many numbers of the same vectors, for each of the sizes.

        Args:
            encode: As for `figures`.
            sizes: How many.

        Raises:
            UserError: As `scoring`.
        """
        ask = with_prompts(encode)
        return self._score(lambda texts, side: _cut(ask(texts, side), sizes), 1 + len(sizes))

    def _score(self, ask: Callable[[list[str], PromptName | None], Sequence[Any]], encoders: int) -> list[Scored]:
        scorings = [self.scoring() for _ in range(encoders)]
        # They ask for the same texts, and end together.
        asked, *_ = [next(scoring) for scoring in scorings]
        found: list[Scored] = []
        while not found:
            for scoring, vectors in zip(scorings, ask(*asked), strict=True):
                try:
                    asked = scoring.send(vectors)
                except StopIteration as end:
                    found.append(end.value)
        return found

    def about(self) -> dict[str, Any]:
        """What a run directory and a report say about it, ready for JSON."""
        known = ("name", "kind", "source", "size", "headline", "labels")
        return {key: getattr(self, key) for key in known}


class Graded(DevelopmentSet):
    """Pairs with grades on any scale: do cosine similarities rank them as the grades do?

    Alignment and uniformity are measured too where the grades are those of STS (0 to 5, some above 4).

    Args:
        name: As the attribute.
        source: As the attribute.
        load: Gives the pairs, when they are first used.
        needs_tensorflow: Whether that imports TensorFlow.
    """

    kind = "graded"
    labels: ClassVar = {
        "spearman": "Spearman x 100",
        "pearson": "Pearson x 100",
        "alignment": "alignment (lower is better)",
        "uniformity": "uniformity (lower is better)",
    }

    def __init__(self, name: str, source: str, load: Callable[[], Pairs], *, needs_tensorflow: bool = False):
        self.name, self.source, self._load, self.needs_tensorflow = name, source, load, needs_tensorflow

    @classmethod
    def of(cls, pairs: Pairs) -> Graded:
        """The development set of pairs that are read already."""
        return cls(pairs.name, pairs.source, lambda: pairs)

    @cached_property
    def pairs(self) -> Pairs:
        """The pairs and grades."""
        return self._load()

    @property
    def size(self) -> str:
        return f"{len(self.pairs.gold):,} pairs"

    def content(self) -> Iterator[str | np.ndarray]:
        yield from ("\0".join(self.pairs.a), "\0".join(self.pairs.b), self.pairs.gold)

    def scoring(self) -> Scoring:
        vectors = yield from _vectors(self.pairs.a + self.pairs.b, self.name)
        a, b = np.split(vectors, 2)
        result = sts.score(a, b, self.pairs)
        found = result.all._asdict()
        if geometry.is_measurable(self.pairs):
            measured = geometry.measure(a, b, self.pairs)
            found |= {"alignment": measured.alignment, "uniformity": measured.uniformity}
        return Scored(found, result.cosines)

    def of_samples(self, answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda samples: sts.spearman_of_samples(answers, self.pairs.gold, samples)

    def gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # By how many ranks a pair comes nearer to where its grade is.
        gold = sts.ranks(self.pairs.gold)
        return np.abs(sts.ranks(before) - gold) - np.abs(sts.ranks(after) - gold)

    def close_pairs(self) -> list[tuple[str, str]]:
        gold = self.pairs.gold
        high = np.flatnonzero(gold >= gold.min() + 0.8 * np.ptp(gold))
        return [(self.pairs.a[i], self.pairs.b[i]) for i in high]


class Labelled(DevelopmentSet):
    """Pairs labelled 1 (the same) or 0: does cosine similarity tell them apart?

    The average precision counts equal similarities as one step, as scikit-learn does. The accuracy is the best that
    any threshold gives: a pair counts as the same if its similarity is at least the threshold. Of equally good
    thresholds it is the highest; it lies midway between two similarities. It is -1 if all pairs count as the same, and
    just above the highest similarity if none does.

    Args:
        name: As the attribute.
        source: As the attribute.
        a: The first text of each of the `n` pairs.
        b: The second text of each.
        same: `(n,)`, 0 or 1, both of which occur.
    """

    kind = "labelled"
    labels: ClassVar = {
        "average_precision": "average precision x 100",
        "accuracy": "best accuracy x 100",
        "threshold": "threshold of the best accuracy",
    }

    def __init__(self, name: str, source: str, a: list[str], b: list[str], same: Sequence[float]):
        self.name, self.source, self.a, self.b = name, source, a, b
        self.same = np.asarray(same, bool)

    @property
    def size(self) -> str:
        return f"{len(self.same):,} pairs"

    def content(self) -> Iterator[str | np.ndarray]:
        yield from ("\0".join(self.a), "\0".join(self.b), self.same)

    def scoring(self) -> Scoring:
        vectors = yield from _vectors(self.a + self.b, self.name)
        a, b = np.split(unit(vectors, self.a + self.b, self.name), 2)
        cosines = _cosines(a, b)
        return Scored(labelled_figures(cosines, self.same), cosines)

    def of_samples(self, answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        def headline(sample: np.ndarray) -> float:
            same = self.same[sample]
            return np.nan if same.all() or not same.any() else labelled_figures(answers[sample], same)[self.headline]

        return lambda samples: np.array([headline(sample) for sample in samples])

    def gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # By how many ranks a pair comes nearer to the end where its label is.
        return (sts.ranks(after) - sts.ranks(before)) * np.where(self.same, 1, -1)

    def close_pairs(self) -> list[tuple[str, str]]:
        return [(a, b) for a, b, same in zip(self.a, self.b, self.same, strict=True) if same]


class Triplets(DevelopmentSet):
    """Anchors, each with a positive and a negative: is the positive the nearer one? Equally near ones count as wrong.

    Args:
        name: As the attribute.
        source: As the attribute.
        anchors: `n` texts.
        positives: The text of each that should be nearer.
        negatives: The text of each that should be farther.
    """

    kind = "triplets"
    labels: ClassVar = {"accuracy": "accuracy x 100"}

    def __init__(self, name: str, source: str, anchors: list[str], positives: list[str], negatives: list[str]):
        self.name, self.source = name, source
        self.anchors, self.positives, self.negatives = anchors, positives, negatives

    @property
    def size(self) -> str:
        return f"{len(self.anchors):,} triplets"

    def content(self) -> Iterator[str | np.ndarray]:
        yield from map("\0".join, (self.anchors, self.positives, self.negatives))

    def scoring(self) -> Scoring:
        texts = self.anchors + self.positives + self.negatives
        vectors = yield from _vectors(texts, self.name)
        anchors, positives, negatives = np.split(unit(vectors, texts, self.name), 3)
        answers = np.stack([_cosines(anchors, positives), _cosines(anchors, negatives)], axis=1)
        return Scored({"accuracy": 100 * float(np.mean(answers[:, 0] > answers[:, 1]))}, answers)

    def of_samples(self, answers: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        right = answers[:, 0] > answers[:, 1]
        return lambda samples: 100 * right[samples].mean(axis=1)

    def gains(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        # By how much a positive comes nearer than its negative.
        return (after[:, 0] - after[:, 1]) - (before[:, 0] - before[:, 1])

    def close_pairs(self) -> list[tuple[str, str]]:
        return list(zip(self.anchors, self.positives, strict=True))


def digits(label: str) -> int:
    """How many digits after the point people are shown of the figure with this label."""
    return 2 if "x 100" in label else 4


def labelled_figures(scores: np.ndarray, same: np.ndarray) -> Figures:
    """Average precision, best accuracy and its threshold.

    Args:
        scores: `(n,)` float, the similarity of each pair.
        same: `(n,)` bool, whether its label is 1; both occur.
    """
    steps, group = np.unique(-scores, return_inverse=True)
    # Of the pairs at or above each of the distinct scores, from the highest: how many there are, how many are the same.
    count = np.cumsum(np.bincount(group))
    hits = np.cumsum(np.bincount(group, weights=same))
    positives = same.sum()
    recall = np.concatenate([[0], hits / positives])
    # Where no pair counts as the same, and from each score on: those that are the same, and the others left out.
    right = np.concatenate([[len(same) - positives], hits + (len(same) - positives) - (count - hits)])
    thresholds = np.concatenate([[np.nextafter(-steps[0], np.inf)], -(steps[:-1] + steps[1:]) / 2, [-1.0]])
    best = int(np.argmax(right))
    return {
        "average_precision": 100 * float(np.sum(np.diff(recall) * hits / count)),
        "accuracy": 100 * float(right[best] / len(same)),
        "threshold": float(thresholds[best]),
    }


def _cut(vectors: Any, sizes: Sequence[int]) -> list[Any]:
    """Vectors `(n, dim)`, and their first numbers for each of the sizes; scorings scale them to unit length."""
    return [vectors, *(np.asarray(vectors)[:, :size] for size in sizes)]


def _vectors(texts: list[str], task: str) -> Generator[Asked, Any, np.ndarray]:
    """Asks for the vectors of texts, each distinct one once: `(len(texts), dim)`."""
    row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = check((yield list(row), None), list(row), task)
    return vectors[[row[text] for text in texts]]


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of unit vectors. Equal texts must tie, which the last bits of their cosine 1 would undo."""
    return np.round(np.sum(a * b, axis=1), 12)
