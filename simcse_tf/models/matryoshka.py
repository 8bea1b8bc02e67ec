"""Matryoshka training: the first numbers of a vector are a vector themselves, as good as so few can be.

Source: Kusupati et al. 2022, "Matryoshka Representation Learning", https://arxiv.org/abs/2205.13147, equation 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from simcse_tf.config import check_sizes
from simcse_tf.errors import UserError
from simcse_tf.models.objectives import Objective, Views, nested, unit


def shortened(vectors: tf.Tensor, dim: int) -> tf.Tensor:
    """The first numbers of vectors, scaled to unit length: `(..., full)` float to `(..., dim)` float32."""
    return unit(vectors[..., :dim])


@keras.saving.register_keras_serializable(package="simcse_tf")
@dataclass(frozen=True)
class Matryoshka(Objective):
    """Any objective at several sizes of the vectors at once: the sum of its losses over their first numbers.

        SimCSE.from_preset("minilm", pooling="avg", objective=Matryoshka(InfoNCE(0.1), (384, 256, 128, 64, 32)))

    With L the objective and `v[:d]` the first d numbers of all vectors of the batch, those of other replicas
    included::

        sum over d of w_d L(v[:d])

    The batch is gathered once: sizes are cut from what was gathered.

    Attributes:
        objective: What compares the vectors at each size. It scales them to unit length by itself.
        sizes: How many of the first numbers to keep; as a rule the encoder's own size among them.
        weights: w above, one for each size; by default all are 1.

    Raises:
        UserError: No sizes, one twice, or less than 1; other weights than sizes, or one that is not above 0.
    """

    objective: Objective | Callable[..., tf.Tensor]
    sizes: tuple[int, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self):
        # Keras saves lists.
        for field in ("sizes", "weights"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        object.__setattr__(self, "target", getattr(self.objective, "target", None))
        object.__setattr__(self, "compares_rows", getattr(self.objective, "compares_rows", False))
        object.__setattr__(self, "views", getattr(self.objective, "views", 2))
        if not self.sizes:
            raise UserError("`sizes`: expected at least one, such as (384, 128).")
        check_sizes("sizes", self.sizes, "weights", self.weights)

    def __call__(self, local: Views, gathered: Views, row_offset: tf.Tensor | int = 0) -> tf.Tensor:
        """As `Objective.__call__`.

        Raises:
            ValueError: The vectors have fewer numbers than the largest size.
        """
        full = local.vectors.shape[-1]
        if full is not None and max(self.sizes) > full:
            raise ValueError(f"Matryoshka size {max(self.sizes)}: the encoder's vectors have {full} numbers")
        return tf.add_n(
            [
                weight * self.objective(_first(size, local), _first(size, gathered), row_offset)
                for size, weight in zip(self.sizes, self.weights or [1.0] * len(self.sizes), strict=True)
            ]
        )

    def get_config(self) -> dict[str, Any]:
        return {
            "objective": keras.saving.serialize_keras_object(self.objective),
            "sizes": list(self.sizes),
            "weights": list(self.weights),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Matryoshka:
        return cls(**config | {"objective": keras.saving.deserialize_keras_object(config["objective"])})


def sizes_of(objective: Any) -> tuple[int, ...]:
    """The sizes at which an objective, or one inside it, compares vectors; none if it knows but one."""
    return next((each.sizes for each in nested(objective) if isinstance(each, Matryoshka)), ())


def _first(size: int, views: Views) -> Views:
    # What else is compared with the vectors, an objective cuts to their length itself.
    return views._replace(vectors=views.vectors[..., :size])
