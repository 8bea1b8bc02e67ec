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
from typing import Any, ClassVar

import numpy as np

from simcse_tf.data.strings import PromptName
from simcse_tf.evaluation import geometry, sts
from simcse_tf.evaluation.embedding import Encode, check, unit, with_prompts
from simcse_tf.evaluation.pairs import Pairs

Figures = dict[str, float]
# Texts, and the side of a search that they are on; None where there is none.
Asked = tuple[list[str], PromptName | None]
# Asks for the vectors of texts, as often as it likes, and returns the figures.
Scoring = Generator[Asked, Any, Figures]


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
        """A generator that yields texts with their side, is sent their vectors `(n, dim)`, and returns the figures.

        Raises:
            UserError: A vector is missing, not finite or of length 0, or a figure is undefined; names the set.
        """

    def figures(self, encode: Encode) -> Figures:
        """How an encoder does: figures by name, the headline's among them.

        Args:
            encode: Texts to their vectors `(n, dim)`. If it is a method of a model with prompts, such as
                `model.encode`, retrieval asks for queries and documents with their prompts; all else is without.

        Raises:
            UserError: As `scoring`.
        """
        ask = with_prompts(encode)
        return self._figures(lambda texts, side: [ask(texts, side)], 1)[0]

    def figures_of_each(self, encode: Callable[[list[str]], Sequence[Any]], encoders: int) -> list[Figures]:
        """As `figures`, for several encoders that encode together.

        Args:
            encode: Texts to the vectors `(n, dim)` of each encoder; a method of a model, or a function, as there.
            encoders: How many there are.

        Raises:
            UserError: As `scoring`.
        """
        return self._figures(with_prompts(encode), encoders)

    def _figures(self, ask: Callable[[list[str], PromptName | None], Sequence[Any]], encoders: int) -> list[Figures]:
        scorings = [self.scoring() for _ in range(encoders)]
        # They ask for the same texts, and end together.
        asked, *_ = [next(scoring) for scoring in scorings]
        found: list[Figures] = []
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
        found = sts.score(a, b, self.pairs).all._asdict()
        if geometry.is_measurable(self.pairs):
            measured = geometry.measure(a, b, self.pairs)
            found |= {"alignment": measured.alignment, "uniformity": measured.uniformity}
        return found


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
        return labelled_figures(_cosines(a, b), self.same)


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
        return {"accuracy": 100 * float(np.mean(_cosines(anchors, positives) > _cosines(anchors, negatives)))}


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


def _vectors(texts: list[str], task: str) -> Generator[Asked, Any, np.ndarray]:
    """Asks for the vectors of texts, each distinct one once: `(len(texts), dim)`."""
    row = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    vectors = check((yield list(row), None), list(row), task)
    return vectors[[row[text] for text in texts]]


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of unit vectors. Equal texts must tie, which the last bits of their cosine 1 would undo."""
    return np.round(np.sum(a * b, axis=1), 12)
