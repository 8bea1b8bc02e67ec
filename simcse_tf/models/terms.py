"""What can stand beside a contrastive loss, weighted, or (alignment and uniformity) in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from simcse_tf.errors import UserError
from simcse_tf.models.objectives import MASKED, Objective, Views, unit


def dimension_contrast(anchors: tf.Tensor, positives: tf.Tensor, *, temperature: float = 5.0) -> tf.Tensor:
    """Cross-entropy of picking, for each dimension of the anchors, the same dimension of the positives.

    With Z and Z' the two `(m, dim)` matrices, each column scaled to mean 0 and variance 1, and C = Z^T Z' / m::

        mean over d of -log( exp(C_dd/t) / sum_k exp(C_dk/t) )

    Source: Xu et al. 2023, "SimCSE++: Improving Contrastive Learning for Sentence Embeddings from Two Perspectives",
    dimension-wise contrastive learning.

    Args:
        anchors: `(m, dim)` float, not scaled to unit length. 1e-5 is added to variances.
        positives: `(m, dim)` float, row i belonging to anchor i; likewise.
        temperature: t above.

    Returns:
        A scalar float32, the loss of the batch.
    """
    z, other = _standardised(anchors), _standardised(positives)
    correlations = tf.matmul(z, other, transpose_a=True) / tf.cast(tf.shape(z)[0], tf.float32)
    return -tf.reduce_mean(tf.linalg.diag_part(tf.nn.log_softmax(correlations / temperature)))


def uniformity(x: tf.Tensor, *, scale: float = 2.0) -> tf.Tensor:
    """How close unit vectors are to each other: log of the mean of exp(-scale |x_i - x_j|^2) over all i and j != i.

    Source: Wang and Isola 2020, "Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere", section 4.

    Args:
        x: `(m, dim)` float, m >= 2; scaled to unit length here.
        scale: As above, 2 in the paper.

    Returns:
        A scalar float32: 0 where all are equal, lower where they spread.
    """
    x = unit(x)
    m = tf.shape(x)[0]
    # The squared distance between unit vectors is 2 - 2 cos. A vector's with itself vanishes.
    exponents = tf.linalg.set_diag(2 * scale * (tf.matmul(x, x, transpose_b=True) - 1), tf.fill([m], MASKED))
    return tf.reduce_logsumexp(exponents) - tf.math.log(tf.cast(m * (m - 1), tf.float32))


def rank_consistency(
    anchors: tf.Tensor,
    positives: tf.Tensor,
    all_anchors: tf.Tensor,
    all_positives: tf.Tensor,
    *,
    temperature: float = 0.05,
) -> tf.Tensor:
    """Wants an anchor and its positive to find the same rows similar: the Jensen-Shannon divergence of what they find.

    With the cosines s_ij of anchor i and positive j, and t for the temperature, for row i::

        P = softmax_j(s_ij / t),  Q = softmax_j(s_ji / t),  M = (P + Q) / 2,  (KL(P || M) + KL(Q || M)) / 2

    Source: Liu et al. 2023, "RankCSE: Unsupervised Sentence Representations Learning via Learning to Rank".

    Args:
        anchors: `(n, dim)` float; all four are scaled to unit length here.
        positives: `(n, dim)` float, row i belonging to anchor i.
        all_anchors: `(m, dim)` float, those of `anchors` among them.
        all_positives: `(m, dim)` float, row i belonging to row i of `all_anchors`.
        temperature: Cosines are divided by it.

    Returns:
        `(n,)` float32, a loss per anchor, from 0 to log 2.
    """

    def log_softmax(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return tf.nn.log_softmax(tf.matmul(unit(x), unit(y), transpose_b=True) / temperature)

    both = tf.stack([log_softmax(anchors, all_positives), log_softmax(positives, all_anchors)])
    middle = tf.reduce_logsumexp(both, axis=0) - math.log(2)
    return tf.reduce_mean(tf.reduce_sum(tf.exp(both) * (both - middle), axis=-1), axis=0)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class DimensionContrast(Objective):
    """Wants the dimensions of vectors to differ from each other: `dimension_contrast` with its setting.

    It compares dimensions, not texts, and so stands beside another loss: see `WithTerms`. Every row has the loss of the
    whole batch, over all replicas.

    Attributes:
        temperature: Correlations are divided by it.
    """

    compares_rows: ClassVar[bool] = True

    temperature: float = 5.0

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`."""
        del row_offset
        loss = dimension_contrast(gathered.vectors[:, 0], gathered.vectors[:, 1], temperature=self.temperature)
        return tf.fill([tf.shape(local.vectors)[0]], loss)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class AlignUniform(Objective):
    """Alignment and uniformity themselves as a loss (Wang and Isola 2020), in a contrastive loss's place or beside it.

    An anchor's squared distance to its positive, plus the mean uniformity of the batch's anchors and of its positives,
    over all replicas. Hard negatives play no part.

    Attributes:
        uniformity_weight: Of uniformity against alignment.
        scale: See `uniformity`.
    """

    compares_rows: ClassVar[bool] = True

    uniformity_weight: float = 1.0
    scale: float = 2.0

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`."""
        del row_offset
        anchors, positives = unit(local.vectors[:, 0]), unit(local.vectors[:, 1])
        distances = tf.reduce_sum(tf.math.squared_difference(anchors, positives), axis=-1)
        spread = tf.add_n([uniformity(gathered.vectors[:, view], scale=self.scale) for view in (0, 1)]) / 2
        return distances + self.uniformity_weight * spread


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class RankConsistency(Objective):
    """Wants an anchor and its positive to find the same rows similar: `rank_consistency` with its setting.

    It is 0 where all texts are equal, and so stands beside another loss: see `WithTerms`.

    Attributes:
        temperature: Cosines are divided by it.
    """

    compares_rows: ClassVar[bool] = True

    temperature: float = 0.05

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`."""
        del row_offset
        vectors = [each.vectors[:, view] for each in (local, gathered) for view in (0, 1)]
        return rank_consistency(*vectors, temperature=self.temperature)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class WithTerms(Objective):
    """An objective with others added to it, weighted.

        WithTerms(InfoNCE(0.05), [DimensionContrast()], [0.1])

    Attributes:
        objective: The one that says which rows can be trained on.
        terms: What is added.
        weights: Their weights, by default 1.

    Raises:
        UserError: Not as many weights as terms.
    """

    compares_rows: ClassVar[bool] = True

    objective: Objective
    terms: tuple[Objective, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self):
        for name in ("terms", "weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "weights", self.weights or (1.0,) * len(self.terms))
        object.__setattr__(self, "target", self.objective.target)
        if len(self.weights) != len(self.terms):
            raise UserError(f"`weights` {self.weights}: expected {len(self.terms)}, one for each of `terms`.")

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`."""
        losses = self.objective(local, gathered, row_offset)
        for term, weight in zip(self.terms, self.weights, strict=True):
            losses += weight * term(local, gathered, row_offset)
        return losses

    def get_config(self) -> dict[str, Any]:
        return {
            "objective": keras.saving.serialize_keras_object(self.objective),
            "terms": [keras.saving.serialize_keras_object(term) for term in self.terms],
            "weights": list(self.weights),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WithTerms:
        objective, *terms = map(keras.saving.deserialize_keras_object, [config["objective"], *config["terms"]])
        return cls(objective, tuple(terms), config["weights"])


def _standardised(x: tf.Tensor) -> tf.Tensor:
    """Each column with mean 0 and variance 1."""
    mean, variance = tf.nn.moments(tf.cast(x, tf.float32), axes=[0])
    return (tf.cast(x, tf.float32) - mean) * tf.math.rsqrt(variance + 1e-5)
