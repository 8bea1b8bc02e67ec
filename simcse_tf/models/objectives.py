"""The contrastive objectives: pure functions, and thin classes that carry their settings.

Anchors may be a part of the batch and candidates all of it: with replicas, every replica compares its own anchors with
the candidates gathered from all of them. The functions return one loss per anchor, in float32; dividing by the global
batch is the caller's business, because only it knows the global batch.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from simcse_tf.data.columns import Target

# Vanishes in a softmax. The logits are float32 whatever the encoder's precision: `unit` makes them so.
_MASKED = -1e4


def unit(x: tf.Tensor) -> tf.Tensor:
    """Scales vectors to unit length.

    Args:
        x: `(..., dim)`, any float type.

    Returns:
        `(..., dim)` float32. Squared norms are floored at 1e-12, so that a zero vector gives zeros, not NaN.
    """
    return tf.math.l2_normalize(tf.cast(x, tf.float32), axis=-1, epsilon=1e-12)


def info_nce(
    anchors: tf.Tensor,
    positives: tf.Tensor,
    hard_negatives: tf.Tensor | None = None,
    *,
    temperature: float = 0.05,
    hard_negative_weight: float = 0.0,
    row_offset: tf.Tensor | int = 0,
    false_negatives: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of picking each anchor's own positive among all candidates of the batch.

    For anchor i with its positive in row p = `row_offset` + i::

        -log( exp(cos(a_i, p_p)/t) / ( sum_j exp(cos(a_i, p_j)/t) + sum_jk exp(cos(a_i, n_jk)/t + w [j = p]) ) )

    Source: Gao et al. 2021, "SimCSE: Simple Contrastive Learning of Sentence Embeddings", equations 1, 4, 5 and 8.

    Args:
        anchors: `(n, dim)` float; scaled to unit length here.
        positives: `(m, dim)` float, m >= n.
        hard_negatives: `(m, k, dim)` float, the k of row j belonging to positive j.
        temperature: Cosines are divided by it.
        hard_negative_weight: w above: added to the logits of the anchor's own hard negatives; the logarithm of the
            paper's alpha.
        row_offset: The row of `positives` that belongs to the first anchor.
        false_negatives: `(n, (1 + k) m)` bool: candidates that are no negatives of the anchor; first all positives,
            then the first hard negative of every row, then the second. They leave the sum; the anchor's own positive
            always stays.

    Returns:
        `(n,)` float32, a loss per anchor.
    """
    anchors = unit(anchors)
    n, m = tf.shape(anchors)[0], tf.shape(positives)[0]
    own = tf.range(n) + row_offset
    logits = tf.matmul(anchors, unit(positives), transpose_b=True) / temperature
    if hard_negatives is not None:
        views = tf.unstack(unit(hard_negatives), axis=1)
        hard = tf.matmul(anchors, tf.concat(views, axis=0), transpose_b=True) / temperature
        weights = hard_negative_weight * tf.one_hot(own, m)
        logits = tf.concat([logits, hard + tf.tile(weights, [1, len(views)])], axis=1)
    if false_negatives is not None:
        is_own = tf.one_hot(own, tf.shape(logits)[1], True, False)
        logits = tf.where(false_negatives & ~is_own, _MASKED, logits)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=own, logits=logits)


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
    differences = tf.where(is_order, cosines[tf.newaxis, :] - cosines[:, tf.newaxis], _MASKED)
    # softplus(x) is log(1 + exp(x)).
    return tf.math.softplus(tf.reduce_logsumexp(differences))


class Views(NamedTuple):
    """A batch after the encoder. View 0 is the anchor, 1 the positive, the others (if any) are hard negatives."""

    # `(n, views, dim)` float
    vectors: tf.Tensor
    # `(n, views)` int64: equal numbers mean equal texts
    text_ids: tf.Tensor
    # `(n,)` int64 labels (anchor and positive are of that class) or float32 scores of pairs, where rows have them
    targets: tf.Tensor | None = None


class Objective(abc.ABC):
    """A contrastive loss with its settings, which are the fields of a dataclass. Keras saves it with the model.

    Attributes:
        target: What the numbers of rows are that it understands, if any: `label` or `score`.
    """

    target: ClassVar[Target | None] = None

    @abc.abstractmethod
    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """Compares this replica's anchors with the candidates of all.

        Args:
            local: `n` rows, 2 views or more.
            gathered: `m` rows, those of `local` among them.
            row_offset: The row of `gathered` where `local` begins.

        Returns:
            `(n,)` float32, a loss per anchor.
        """

    def get_config(self) -> dict[str, Any]:
        """The settings, from which `from_config` makes an equal objective."""
        return dataclasses.asdict(self)  # pyright: ignore[reportArgumentType]  (subclasses are dataclasses)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Objective:
        """The objective with these settings."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class InfoNCE(Objective):
    """Picks each anchor's positive among all candidates of the batch (SimCSE's loss): `info_nce` with its settings.

    Where rows have labels, positives of an anchor's own class are never its negatives.

    Attributes:
        temperature: Cosines are divided by it.
        hard_negative_weight: Added to the logits of each anchor's own hard negatives.
        mask_false_negatives: Texts that occur twice in a batch are not each other's negatives.
    """

    target: ClassVar[Target | None] = "label"

    temperature: float = 0.05
    hard_negative_weight: float = 0.0
    mask_false_negatives: bool = True

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        masks = [same_text(local, gathered)] if self.mask_false_negatives else []
        masks += [] if local.targets is None else [same_class(local, gathered)]
        return info_nce(
            local.vectors[:, 0],
            gathered.vectors[:, 1],
            gathered.vectors[:, 2:] if local.vectors.shape[1] > 2 else None,
            temperature=self.temperature,
            hard_negative_weight=self.hard_negative_weight,
            row_offset=row_offset,
            false_negatives=functools.reduce(tf.logical_or, masks) if masks else None,
        )


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


def same_text(local: Views, gathered: Views) -> tf.Tensor:
    """Which candidates are, word for word, the anchor or its positive.

    Args:
        local: `n` rows.
        gathered: `m` rows.

    Returns:
        `(n, (views - 1) m)` bool: positives first, then view by view. Each row's own positive is among them.
    """
    candidates = tf.concat(tf.unstack(gathered.text_ids, axis=1)[1:], axis=0)
    anchors, positives = local.text_ids[:, :1], local.text_ids[:, 1:2]
    return (anchors == candidates) | (positives == candidates)


def same_class(local: Views, gathered: Views) -> tf.Tensor:
    """Which candidates are positives of the anchor's class. Of hard negatives labels say nothing.

    Args:
        local: `n` rows with labels.
        gathered: `m` rows with labels.

    Returns:
        As `same_text`.
    """
    assert local.targets is not None
    assert gathered.targets is not None
    same = tf.expand_dims(local.targets, 1) == tf.expand_dims(gathered.targets, 0)
    return tf.concat([same, *[tf.zeros_like(same)] * (local.text_ids.shape[1] - 2)], axis=1)


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
