"""What an encoder can learn from a teacher's vectors, beside the contrastive loss or instead of it.

Pure functions, and `Distillation`, which adds them up. What a teacher says of false negatives is part of InfoNCE:
`simcse_tf.models.objectives.as_similar`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import tensorflow as tf

from simcse_tf.models.objectives import MASKED, Objective, Views, by_view, taught, unit


def vector_distance(vectors: tf.Tensor, teacher: tf.Tensor) -> tf.Tensor:
    """How far vectors are from a teacher's: 1 - cosine, a mean over views.

    It is half the squared distance between the vectors of unit length. With pairs of a text and its translation, where
    the teacher's vector of the text stands for both, it is, but for the lengths, the loss of Reimers and Gurevych 2020,
    "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation".

    Args:
        vectors: `(n, views, dim)` float; scaled to unit length here.
        teacher: `(n, views, dim)` float, of the same texts; likewise.

    Returns:
        `(n,)` float32, a loss per row.
    """
    return tf.reduce_mean(1 - tf.reduce_sum(unit(vectors) * unit(teacher), axis=-1), axis=1)


def listwise(
    anchors: tf.Tensor,
    candidates: tf.Tensor,
    teacher_anchors: tf.Tensor,
    teacher_candidates: tf.Tensor,
    own: tf.Tensor,
    *,
    teacher_temperature: float = 0.025,
    temperature: float = 0.05,
) -> tf.Tensor:
    """Wants the candidates to be as similar to an anchor, compared with each other, as a teacher finds them (ListNet).

    With the cosines s of the encoder and T of the teacher, for anchor i::

        -sum_j softmax_j(T_ij / teacher_temperature) log softmax_j(s_ij / temperature)

    over all candidates but the anchor's own positive, which in unsupervised training is the same text.

    Source: Cao et al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach"; for sentence embeddings,
    with these temperatures, Liu et al. 2023, "RankCSE: Unsupervised Sentence Representations Learning via Learning to
    Rank".

    Args:
        anchors: `(n, dim)` float; all four are scaled to unit length here.
        candidates: `(m, dim)` float.
        teacher_anchors: `(n, teacher_dim)` float, of the same texts as `anchors`.
        teacher_candidates: `(m, teacher_dim)` float, of the same texts as `candidates`.
        own: `(n,)` int: which candidate is the anchor's positive.
        teacher_temperature: The teacher's cosines are divided by it.
        temperature: The encoder's cosines are divided by it.

    Returns:
        `(n,)` float32, a loss per anchor. At its lowest it is the entropy of the teacher's distribution, not 0.
    """
    is_own = tf.one_hot(own, tf.shape(candidates)[0], True, False)

    def logits(x: tf.Tensor, y: tf.Tensor, temperature: float) -> tf.Tensor:
        return tf.where(is_own, MASKED, tf.matmul(unit(x), unit(y), transpose_b=True) / temperature)

    wanted = tf.nn.softmax(logits(teacher_anchors, teacher_candidates, teacher_temperature))
    found = logits(anchors, candidates, temperature)
    return tf.nn.softmax_cross_entropy_with_logits(labels=tf.stop_gradient(wanted), logits=found)


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class Distillation(Objective):
    """Adds to an objective what a teacher knows: a weighted sum of losses, of which those with weight 0 are left out.

    Batches have the teacher's vectors as `teacher`, `(batch, views, teacher_dim)`.

    Attributes:
        objective: What is learned beside it; None for nothing.
        vectors_weight: Of `vector_distance`, over all views. Where the teacher's vectors have another size than the
            encoder's, the model needs a `projection`.
        listwise_weight: Of `listwise`, for the first view among the others of all rows; where rows are single texts and
            nothing else needs two views of them, among these.
        teacher_temperature: The teacher's cosines are divided by it in `listwise`.
        temperature: The encoder's cosines are divided by it in `listwise`.
    """

    compares_rows: ClassVar[bool] = True

    objective: Objective | None = None
    vectors_weight: float = 1.0
    listwise_weight: float = 0.0
    teacher_temperature: float = 0.025
    temperature: float = 0.05

    @property
    def target(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return getattr(self.objective, "target", None)

    @property
    def views(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return 1 if self.objective is None else 2

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`.

        Raises:
            ValueError: The batch has no vectors of a teacher, or they have another size and the model no projection.
        """
        losses = tf.zeros(tf.shape(local.vectors)[:1])
        if self.objective is not None:
            losses += self.objective(local, gathered, row_offset)
        if self.vectors_weight:
            losses += self.vectors_weight * vector_distance(_in_the_teachers_space(local), taught(local))
        if self.listwise_weight:
            # Positives first, then view by view, as in InfoNCE; of single texts, which have none, the texts.
            candidates = slice(1, None) if local.vectors.shape[1] > 1 else slice(1)
            losses += self.listwise_weight * listwise(
                local.vectors[:, 0],
                by_view(gathered.vectors, candidates),
                taught(local)[:, 0],
                by_view(taught(gathered), candidates),
                tf.range(tf.shape(local.vectors)[0]) + row_offset,
                teacher_temperature=self.teacher_temperature,
                temperature=self.temperature,
            )
        return losses

    def get_config(self) -> dict[str, Any]:
        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return settings | {"objective": keras.saving.serialize_keras_object(self.objective)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Distillation:
        if isinstance(config["objective"], dict):
            config = config | {"objective": keras.saving.deserialize_keras_object(config["objective"])}
        return cls(**config)


def _in_the_teachers_space(local: Views) -> tf.Tensor:
    """The encoder's vectors, or what the model's projection makes of them."""
    vectors = local.vectors if local.projected is None else local.projected
    if vectors.shape[-1] != taught(local).shape[-1]:
        raise ValueError(
            f"the encoder's vectors have {vectors.shape[-1]} numbers, the teacher's {taught(local).shape[-1]}: "
            f"SimCSE(..., projection={taught(local).shape[-1]}) learns how they belong together. Or set vectors_weight "
            "to 0: similarities do not depend on the size."
        )
    return vectors
