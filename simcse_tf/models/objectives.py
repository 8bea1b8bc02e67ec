"""The contrastive objectives: pure functions, and thin classes that carry their settings.

Anchors may be a part of the batch and candidates all of it: with replicas, every replica compares its own anchors with
the candidates gathered from all of them. The functions return one loss per anchor, in float32; dividing by the global
batch is the caller's business, because only it knows the global batch.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from simcse_tf.checks import check_choice
from simcse_tf.config import LOGITS, check_directions, check_number
from simcse_tf.data.columns import Target
from simcse_tf.errors import UserError

# Vanishes in a softmax. The logits are float32 whatever the encoder's precision: `unit` makes them so.
MASKED = -1e4


def unit(x: tf.Tensor) -> tf.Tensor:
    """Scales vectors to unit length.

    Args:
        x: `(..., dim)`, any float type.

    Returns:
        `(..., dim)` float32. Squared norms are floored at 1e-12, so that a zero vector gives zeros, not NaN.
    """
    return tf.math.l2_normalize(tf.cast(x, tf.float32), axis=-1, epsilon=1e-12)


def info_nce(
    cosines: tf.Tensor,
    own: tf.Tensor,
    *,
    temperature: float | tf.Tensor = 0.05,
    excluded: tf.Tensor | None = None,
    added: tf.Tensor | None = None,
    logits: str = "cosine",
    margin: float = 0.0,
    positive_scale: float = 1.0,
    decoupled: bool = False,
) -> tf.Tensor:
    """Cross-entropy of picking each anchor's own positive among all candidates.

    For anchor i with its positive in column p = own[i]::

        -log( exp(l_ip/t) / sum_j exp(l_ij/t + w_ij) ),  l = `_LOGITS[logits]` of the cosines

    Sources: Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", equations 1, 4, 5 and 8.
    Decoupled: Yeh et al. 2022, "Decoupled Contrastive Learning".

    Args:
        cosines: `(n, columns)` float32, of anchors and candidates.
        own: `(n,)` int, the column of each anchor's own positive.
        temperature: t above.
        excluded: `(n, columns)` bool, candidates that are not negatives of the anchor. They leave the sum; the anchor's
            own positive stays.
        added: `(n, columns)` float, w above.
        logits: How a cosine becomes a logit.
        margin: Its parameter.
        positive_scale: The own pair's logit is multiplied by it.
        decoupled: Leave the own positive out of the sum: only negatives are below the line.

    Returns:
        `(n,)` float32, a loss per anchor; 0 for one without negatives.
    """
    is_own = tf.one_hot(own, tf.shape(cosines)[1], True, False)
    values = _LOGITS[logits](cosines, is_own, margin)
    if positive_scale != 1:
        values *= tf.where(is_own, positive_scale, 1.0)
    values /= temperature
    if added is not None:
        values += added
    if excluded is not None:
        values = tf.where(excluded & ~is_own, MASKED, values)
    if not decoupled:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=values)
    negatives = tf.reduce_logsumexp(tf.where(is_own, MASKED, values), axis=1)
    return tf.where(negatives > MASKED / 2, negatives - tf.gather(values, own, batch_dims=1), 0.0)


def _arccon(cosines: tf.Tensor, is_own: tf.Tensor, margin: float) -> tf.Tensor:
    """cos(angle + margin) in place of the own pair's cosine, where that is positive: the pair has to be nearer.

    The margin is in radians. 1e-6 under the root keeps the gradient finite where the two are equal.

    Source: Zhang et al. 2022, "A Contrastive Framework for Learning Sentence Representations from Pairwise and
    Triple-wise Perspective in Angular Space" (ArcCSE).
    """
    sines = tf.sqrt(tf.maximum(0.0, 1 - cosines**2) + 1e-6)
    return tf.where(is_own & (cosines > 0), cosines * math.cos(margin) - sines * math.sin(margin), cosines)


def _focal(cosines: tf.Tensor, is_own: tf.Tensor, margin: float) -> tf.Tensor:
    """s^2 for the own pair, s (s + margin) for all others: what is hard weighs more, in either.

    Neither rises everywhere: below -margin/2, where s (s + margin) would fall, it stays at its minimum, and of an own
    pair s |s| is taken, which is s^2 where s is positive.

    Source: Hou and Li 2023, "Improving Contrastive Learning of Sentence Embeddings with Focal-InfoNCE".
    """
    others = tf.maximum(cosines, -margin / 2)
    return tf.where(is_own, cosines * tf.abs(cosines), others * (others + margin))


# Names as in `config.LOGITS`: `(n, columns)` cosines, which of them are own pairs, a margin -> `(n, columns)`.
_LOGITS: dict[str, Callable[[tf.Tensor, tf.Tensor, float], tf.Tensor]] = {
    "cosine": lambda cosines, is_own, margin: cosines,
    "arccon": _arccon,
    "focal": _focal,
}


def mix_positives(positives: tf.Tensor, share: float) -> tf.Tensor:
    """A hard negative for each row: a little of its positive in the next row's; without gradient.

    For row i, with j = i + 1, after the last row the first::

        unit(share p_i + (1 - share) p_j)

    It is no negative of row j, most of whose positive it is.

    Source: Zhang et al. 2022, "Unsupervised Sentence Representation via Contrastive Learning with Mixing Negatives"
    (MixCSE).

    Args:
        positives: `(m, dim)` float, of unit length.
        share: Of the own positive.

    Returns:
        `(m, dim)` float32 of unit length.
    """
    return tf.stop_gradient(unit(share * positives + (1 - share) * tf.roll(positives, -1, axis=0)))


def triplet_margin(
    anchors: tf.Tensor, positives: tf.Tensor, hard_negatives: tf.Tensor, *, margin: float = 0.2
) -> tf.Tensor:
    """The triplet margin loss over unit vectors: max(0, |a - p|^2 - |a - n|^2 + margin), a mean over hard negatives.

    Source: Schroff et al. 2015, "FaceNet", equation 3.

    Args:
        anchors: `(n, dim)` float; all three are scaled to unit length here.
        positives: `(n, dim)` float, row i belonging to anchor i.
        hard_negatives: `(n, k, dim)` float, the k of row i belonging to anchor i; each makes a triplet.
        margin: How much nearer the positive has to be, in squared distance (at most 4 between unit vectors).

    Returns:
        `(n,)` float32, a loss per anchor.
    """
    anchors = unit(anchors)[:, tf.newaxis]
    to_positive = tf.reduce_sum(tf.math.squared_difference(anchors, unit(positives)[:, tf.newaxis]), axis=-1)
    to_negative = tf.reduce_sum(tf.math.squared_difference(anchors, unit(hard_negatives)), axis=-1)
    return tf.reduce_mean(tf.nn.relu(to_positive - to_negative + margin), axis=1)


def cosent(left: tf.Tensor, right: tf.Tensor, scores: tf.Tensor, *, temperature: float = 0.05) -> tf.Tensor:
    """Wants pairs with a higher score to be more similar than all pairs with a lower one.

    For pairs of texts i and j with their scores s and the cosines c of their vectors::

        log( 1 + sum over i, j with s_i > s_j of exp((c_j - c_i)/t) )

    Source: Su 2022, "CoSENT", https://kexue.fm/archives/8847. There t is 1/20.

    Args:
        left: `(m, dim)` float; scaled to unit length here.
        right: `(m, dim)` float, row i making a pair with row i of `left`.
        scores: `(m,)` numbers on any scale: only their order counts.
        temperature: Differences of cosines are divided by it.

    Returns:
        A scalar float32, the loss of all pairs together; 0, with a gradient of 0, where all scores are equal.
    """
    cosines = tf.reduce_sum(unit(left) * unit(right), axis=-1) / temperature
    is_order = scores[:, tf.newaxis] > scores[tf.newaxis, :]
    differences = tf.where(is_order, cosines[tf.newaxis, :] - cosines[:, tf.newaxis], MASKED)
    # softplus(x) is log(1 + exp(x)).
    return tf.math.softplus(tf.reduce_logsumexp(differences))


class Queue(NamedTuple):
    """Texts of earlier batches, which are negatives of every anchor."""

    # `(size, dim)` float, without gradient
    vectors: tf.Tensor
    # `(size,)` int64, as in `Views`; -1 where there is no text yet
    text_ids: tf.Tensor


class Views(NamedTuple):
    """A batch after the encoder. View 0 is the anchor, 1 the positive, the others (if any) are hard negatives."""

    # `(n, views, dim)` float
    vectors: tf.Tensor
    # `(n, views)` int64: equal numbers mean equal texts
    text_ids: tf.Tensor
    # `(n,)` int64 labels (anchor and positive are of that class) or float32 scores of pairs, where rows have them
    targets: tf.Tensor | None = None
    # `(n, dim)` float: the anchors as they are without dropout, where the model encodes them so
    without_dropout: tf.Tensor | None = None
    # Of what is gathered: texts of earlier batches, where the model keeps them
    queue: Queue | None = None
    # Of what is gathered: a scalar in place of the objective's own temperature, where the model learns it
    temperature: tf.Tensor | None = None
    # `(n, views, teacher_dim)` float32: the same texts as a teacher encodes them, where there is one
    teacher: tf.Tensor | None = None
    # `(n, views, teacher_dim)` float: `vectors` in the teacher's space, where that is another one; not gathered
    projected: tf.Tensor | None = None


class Objective(abc.ABC):
    """A contrastive loss with its settings, which are the fields of a dataclass. Keras saves it with the model.

    Attributes:
        target: What the numbers of rows are that it understands, if any: `label` or `score`.
        views: How many views of a row it compares at least; a text alone in its row is encoded as often.
        compares_rows: Whether a batch needs two rows.
    """

    target: ClassVar[Target | None] = None
    views: ClassVar[int] = 2
    compares_rows: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """Compares this replica's anchors with the candidates of all.

        Args:
            local: `n` rows, as many views as the objective compares or more.
            gathered: `m` rows, those of `local` among them.
            row_offset: The row of `gathered` where `local` begins.

        Returns:
            `(n,)` float32, a loss per anchor.
        """

    def get_config(self) -> dict[str, Any]:
        """The settings, from which `from_config` makes an equal objective."""
        fields = dataclasses.fields(self)  # pyright: ignore[reportArgumentType]  (subclasses are dataclasses)
        values = {field.name: getattr(self, field.name) for field in fields}
        # JSON has no tuples.
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Objective:
        """The objective with these settings."""
        return cls(**config)


# What is compared with what inside a batch: the view of the anchors, and that of the candidates.
_DIRECTIONS = {"a2p": (0, 1), "p2a": (1, 0), "a2a": (0, 0), "p2p": (1, 1)}


class _Candidates(NamedTuple):
    """What `info_nce` compares anchors with; its arguments."""

    cosines: tf.Tensor
    excluded: tf.Tensor | None = None
    added: tf.Tensor | None = None


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class InfoNCE(Objective):
    """Picks each anchor's positive among all candidates of the batch (SimCSE's loss): `info_nce` with its settings.

    The candidates are the positives and the hard negatives of all rows. Other settings than the first three are what
    later papers changed; they can be combined.

    Where rows have labels, texts of an anchor's own class are never its negatives. With a model's `queue_size`, the
    queue's texts are candidates too; with its `off_dropout`, negatives are the other anchors, and they and the anchor
    are compared as they are without dropout (Xu et al. 2023, "SimCSE++", which has a `positive_scale` of 0.9). With the
    queue and with mixed negatives, which are of no paper beside it, the anchor is compared as it is with dropout.

    Attributes:
        temperature: Cosines are divided by it.
        hard_negative_weight: Added to the logits of each anchor's own hard negatives; the logarithm of the paper's
            alpha.
        mask_false_negatives: Texts that occur twice in a batch are not each other's negatives.
        directions: What is compared: `a2p`, anchors with the candidates above, and beside it `p2a`, positives with all
            anchors, `a2a`, anchors with the other anchors, `p2p`, positives with the other positives. Each is a
            cross-entropy of the own pair among the direction's negatives, and the loss is their mean.
        joint: All directions in one sum instead, in which the own pair occurs once (Li et al. 2023, "Towards General
            Text Embeddings with Multi-stage Contrastive Learning", where it occurs twice).
        logits: `cosine`; `arccon`, whose own pair has to be nearer by an angle (ArcCSE); or `focal`, which weighs by
            hardness (Focal-InfoNCE).
        margin: Of `arccon` in radians, of `focal` a cosine. By default the paper's: 10 degrees, 0.3.
        positive_scale: The own pair's logit is multiplied by it.
        decoupled: Leave the own pair out of the sum below the line (decoupled contrastive learning).
        mixed_negatives: If given, each row has one negative more, a mix of this share of its positive with the next
            row's (MixCSE, 0.2): see `mix_positives`.
        mask_margin: If given, texts that a teacher finds more similar to an anchor than its positive, less this margin,
            are not its negatives: see `as_similar`.
        mask_relative_margin: The same as a share of the positive's cosine; counts where `mask_margin` is given.

    Raises:
        UserError: A value that cannot be.
    """

    target: ClassVar[Target | None] = "label"
    compares_rows: ClassVar[bool] = True

    temperature: float = 0.05
    hard_negative_weight: float = 0.0
    mask_false_negatives: bool = True
    directions: tuple[str, ...] = ("a2p",)
    joint: bool = False
    logits: str = "cosine"
    margin: float | None = None
    positive_scale: float = 1.0
    decoupled: bool = False
    mixed_negatives: float | None = None
    mask_margin: float | None = None
    mask_relative_margin: float = 0.0

    def __post_init__(self):
        # Keras saves lists.
        object.__setattr__(self, "directions", tuple(self.directions))
        check_directions(self.directions, self.joint)
        check_choice("logits", self.logits, tuple(LOGITS))
        if self.margin is not None and LOGITS[self.logits] is None:
            raise UserError(f"`margin` {self.margin:g}: `logits` {self.logits} has none. Omit it.")
        for field, name in (("margin", self.logits), ("positive_scale", "off_dropout"), ("mixed_negatives", "mixed")):
            if (value := getattr(self, field)) is not None:
                check_number(field, name, value)

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`.

        Raises:
            ValueError: Anchors without dropout stand beside hard negatives, or in another direction than `a2p`.
        """
        own = tf.range(tf.shape(local.vectors)[0]) + row_offset
        # First the direction whose column `own` stays where the others are joined to it.
        directions = [name for name in _DIRECTIONS if name in self.directions]
        found = [self._candidates(name, local, gathered, own) for name in directions]
        if self.joint:
            found = [_joined(found, own)]
        losses = [
            info_nce(
                candidates.cosines,
                own,
                temperature=self.temperature if gathered.temperature is None else gathered.temperature,
                excluded=candidates.excluded,
                added=candidates.added,
                logits=self.logits,
                margin=(LOGITS[self.logits] or 0.0) if self.margin is None else self.margin,
                positive_scale=self.positive_scale,
                decoupled=self.decoupled,
            )
            for candidates in found
        ]
        return losses[0] if len(losses) == 1 else tf.add_n(losses) / len(losses)

    def _candidates(self, direction: str, local: Views, gathered: Views, own: tf.Tensor) -> _Candidates:
        """What the anchors of a direction are compared with; the own pair is in column `own`."""
        view, other = _DIRECTIONS[direction]
        views = slice(1, None) if direction == "a2p" else slice(other, other + 1)
        anchors, candidates = local.vectors[:, view], by_view(gathered.vectors, views)
        off_dropout = gathered.without_dropout is not None
        if off_dropout:
            if self.directions != ("a2p",) or gathered.vectors.shape[1] > 2:
                raise ValueError(
                    "anchors without dropout are compared with each other alone: neither with hard negatives nor in "
                    "other directions than a2p"
                )
            views = slice(1)
            anchors, candidates = (_as_long(each.without_dropout, local) for each in (local, gathered))
        cosines = tf.matmul(unit(anchors), unit(candidates), transpose_b=True)
        if view == other or off_dropout:
            pairs = tf.reduce_sum(unit(local.vectors[:, 0]) * unit(local.vectors[:, 1]), axis=1, keepdims=True)
            cosines = tf.where(tf.one_hot(own, tf.shape(cosines)[1], True, False), pairs, cosines)
        excluded = self._excluded(local, gathered, views, view)
        if direction != "a2p":
            return _Candidates(cosines, excluded)
        return self._with_hard_negatives(cosines, excluded, local, gathered, own)

    def _with_hard_negatives(
        self, cosines: tf.Tensor, excluded: tf.Tensor | None, local: Views, gathered: Views, own: tf.Tensor
    ) -> _Candidates:
        """Weighs hard negatives among the candidates of anchors, and adds mixed ones and the queue's."""
        rows, columns = tf.shape(gathered.vectors)[0], tf.shape(cosines)[1]
        more, masks = [], []
        if self.mixed_negatives is not None:
            more.append(mix_positives(unit(gathered.vectors[:, 1]), self.mixed_negatives))
            # What is no negative stays none with a little of another text.
            none = tf.one_hot(own, rows, True, False)
            false = self._excluded(local, gathered, slice(1, 2))
            none = none if false is None else none | false
            masks.append(tf.concat([none[:, 1:], none[:, :1]], axis=1))
        if gathered.queue is not None:
            more.append(unit(_as_long(gathered.queue.vectors, local)))
            empty, known = gathered.queue.text_ids < 0, _is_own_text(local, gathered.queue.text_ids)
            masks.append(empty | (known if self.mask_false_negatives else tf.zeros_like(known)))
        if more:
            others = tf.matmul(unit(local.vectors[:, 0]), tf.concat(more, axis=0), transpose_b=True)
            excluded = tf.zeros_like(cosines, tf.bool) if excluded is None else excluded
            cosines, excluded = tf.concat([cosines, others], axis=1), tf.concat([excluded, *masks], axis=1)
        added, hard = None, gathered.vectors.shape[1] - 2
        if hard and self.hard_negative_weight:
            weights = tf.tile(self.hard_negative_weight * tf.one_hot(own, rows), [1, hard])
            added = tf.pad(weights, [[0, 0], [rows, tf.shape(cosines)[1] - columns]])
        return _Candidates(cosines, excluded, added)

    def _excluded(self, local: Views, gathered: Views, views: slice, view: int = 0) -> tf.Tensor | None:
        """Which candidates are no negatives of a view, as `same_text`; None if all are."""
        masks = [same_text(local, gathered, views)] if self.mask_false_negatives else []
        masks += [] if local.targets is None else [same_class(local, gathered, views)]
        if self.mask_margin is not None:
            margins = {"margin": self.mask_margin, "relative_margin": self.mask_relative_margin}
            masks.append(as_similar(local, gathered, views, **margins, of=view))
        return functools.reduce(tf.logical_or, masks) if masks else None


def _joined(found: list[_Candidates], own: tf.Tensor) -> _Candidates:
    """All candidates side by side, with the own pair in the first direction alone."""
    first, *others = found
    excluded = [tf.zeros_like(first.cosines, tf.bool) if first.excluded is None else first.excluded]
    for each in others:
        is_own = tf.one_hot(own, tf.shape(each.cosines)[1], True, False)
        excluded.append(is_own if each.excluded is None else is_own | each.excluded)
    cosines = tf.concat([each.cosines for each in found], axis=1)
    added = first.added
    if added is not None:
        added = tf.pad(added, [[0, 0], [0, tf.shape(cosines)[1] - tf.shape(added)[1]]])
    return _Candidates(cosines, tf.concat(excluded, axis=1), added)


def _as_long(vectors: tf.Tensor | None, local: Views) -> tf.Tensor:
    """As many of the first numbers as the batch's vectors have: an objective of prefixes shortens those alone."""
    assert vectors is not None
    return vectors[..., : local.vectors.shape[-1]]


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class TripletMargin(Objective):
    """Wants each anchor nearer to its positive than to its hard negatives: `triplet_margin` with its setting.

    Attributes:
        margin: How much nearer the positive has to be, in squared distance.
    """

    margin: float = 0.2

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`.

        Raises:
            ValueError: The batch has no hard negatives.
        """
        del gathered, row_offset
        if local.vectors.shape[1] < 3:
            raise ValueError(
                f"the triplet loss needs 3 views (with a hard negative), the batch has {local.vectors.shape[1]}"
            )
        return triplet_margin(local.vectors[:, 0], local.vectors[:, 1], local.vectors[:, 2:], margin=self.margin)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class CoSENT(Objective):
    """Wants the cosines of graded pairs in the order of their scores: `cosent` with its setting.

    Every row has the loss of the whole batch, over all replicas, so that the mean over rows is that loss.

    Attributes:
        temperature: Differences of cosines are divided by it.
    """

    target: ClassVar[Target | None] = "score"
    compares_rows: ClassVar[bool] = True

    temperature: float = 0.05

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`.

        Raises:
            ValueError: The batch is not one of pairs with scores.
        """
        del row_offset
        left, *right = tf.unstack(gathered.vectors, axis=1)
        if gathered.targets is None or len(right) != 1:
            raise ValueError(
                f"CoSENT needs rows of 2 texts and a score; the batch has {1 + len(right)} views and "
                f"{'no ' if gathered.targets is None else ''}scores"
            )
        loss = cosent(left, right[0], gathered.targets, temperature=self.temperature)
        return tf.fill([tf.shape(local.vectors)[0]], loss)


def same_text(local: Views, gathered: Views, views: slice = slice(1, None)) -> tf.Tensor:
    """Which candidates are, word for word, the anchor or its positive.

    Args:
        local: `n` rows.
        gathered: `m` rows.
        views: Those that are candidates.

    Returns:
        `(n, views m)` bool: view by view, positives first by default. Each row's own positive is among them.
    """
    return _is_own_text(local, by_view(gathered.text_ids, views))


def same_class(local: Views, gathered: Views, views: slice = slice(1, None)) -> tf.Tensor:
    """Which candidates are anchors or positives of the anchor's class. Of hard negatives labels say nothing.

    Args:
        local: `n` rows with labels.
        gathered: `m` rows with labels.
        views: Those that are candidates.

    Returns:
        As `same_text`.
    """
    assert local.targets is not None
    assert gathered.targets is not None
    same = tf.expand_dims(local.targets, 1) == tf.expand_dims(gathered.targets, 0)
    candidates = range(local.text_ids.shape[1])[views]
    return tf.concat([same if view < 2 else tf.zeros_like(same) for view in candidates], axis=1)


def _is_own_text(local: Views, text_ids: tf.Tensor) -> tf.Tensor:
    """Which of `(columns,)` texts are the anchor or its positive: `(n, columns)` bool."""
    anchors, positives = local.text_ids[:, :1], local.text_ids[:, 1:2]
    return (anchors == text_ids) | (positives == text_ids)


def by_view(x: tf.Tensor, views: slice) -> tf.Tensor:
    """Some views under each other, first the first view of all rows: `(m, views, ...)` to `(views m, ...)`."""
    chosen = tf.unstack(x, axis=1)[views]
    return chosen[0] if len(chosen) == 1 else tf.concat(chosen, axis=0)


def nested(objective: Any) -> list[Any]:
    """An objective and those that it is wrapped around, from outside in: each has the next one as `objective`."""
    found = []
    while objective is not None:
        found.append(objective)
        objective = getattr(objective, "objective", None)
    return found


def as_similar(
    local: Views,
    gathered: Views,
    views: slice = slice(1, None),
    *,
    margin: float = 0.0,
    relative_margin: float = 0.0,
    of: int = 0,
) -> tf.Tensor:
    """Which candidates a teacher finds more similar to the anchor than its positive, or nearly so.

    With the teacher's cosines g, candidate j of anchor i is one where::

        g_ij > g_ii - margin - relative_margin |g_ii|

    Source: Solatorio 2024, "GISTEmbed: Guided In-sample Selection of Training Negatives for Text Embedding
    Fine-tuning". There both margins are 0.

    Args:
        local: `n` rows with the teacher's vectors.
        gathered: `m` rows with the teacher's vectors.
        views: Those that are candidates.
        margin: How far below the positive's cosine the limit is.
        relative_margin: The same as a share of the positive's cosine.
        of: The view that is compared with the candidates: the anchor, or the positive.

    Returns:
        `(n, views m)` bool: view by view. Each row's own positive may be among them.

    Raises:
        ValueError: The batch has no teacher's vectors.
    """
    own, candidates = taught(local), by_view(taught(gathered), views)
    pairs = tf.reduce_sum(own[:, 0] * own[:, 1], axis=-1, keepdims=True)
    cosines = tf.matmul(own[:, of], candidates, transpose_b=True)
    return cosines > pairs - margin - relative_margin * tf.abs(pairs)


def taught(views: Views) -> tf.Tensor:
    """The teacher's vectors of a batch, scaled to unit length: `(n, views, teacher_dim)` float32.

    Raises:
        ValueError: It has none.
    """
    if views.teacher is None:
        raise ValueError("the batch has no vectors of a teacher, `teacher` `(batch, views, dim)` float")
    return unit(views.teacher)


def count_false_negatives(local: Views, gathered: Views) -> tf.Tensor:
    """How many of these anchors' negatives are, word for word, the anchor or its positive, each pair counted.

    Args:
        local: `n` rows.
        gathered: `m` rows, those of `local` among them.

    Returns:
        A scalar, float32.
    """
    found = tf.reduce_sum(tf.cast(same_text(local, gathered), tf.int32))
    # Among what `same_text` finds is every anchor's own positive.
    return tf.cast(found - tf.shape(local.text_ids)[0], tf.float32)
