"""Negatives from earlier batches, as a slowly moving copy of the encoder sees them (momentum contrast).

Sources: Wu et al. 2022, "ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised Sentence
Embedding", section 3.2; He et al. 2020, "Momentum Contrast for Unsupervised Visual Representation Learning".
"""

from __future__ import annotations

import keras
import tensorflow as tf

from simcse_tf.models.encoder import Encoder
from simcse_tf.models.objectives import Queue, unit
from simcse_tf.training import replicas


class MomentumQueue(keras.layers.Layer):
    """The latest texts of a training run, and the encoder that has encoded them.

    Its weights are a moving average of the encoder's, and its vectors are without dropout; the head is the encoder's
    own. All of it is state of the training model: saved and resumed with it, and no part of the encoder.

    Args:
        encoder: The one in training, built. It is copied, not kept.
        size: How many texts.
        momentum: How much of the average stays, in each step.
    """

    def __init__(self, encoder: Encoder, size: int, momentum: float):
        super().__init__(name="momentum_queue", trainable=False)
        backbone = type(encoder.backbone).from_config(encoder.backbone.get_config())
        for own, other in zip(backbone.weights, encoder.backbone.weights, strict=True):
            own.assign(other)
        self.momentum = momentum
        self.average = Encoder(backbone, None, encoder.config.pooling, "none", encoder.max_length, name="average")
        self.average.trainable = False
        self.vectors = self.add_weight(
            name="vectors", shape=(size, backbone.hidden_dim), dtype="float32", initializer="zeros", trainable=False
        )
        self.text_ids = self.add_weight(
            name="text_ids", shape=(size,), dtype="int64", initializer=keras.initializers.Constant(-1), trainable=False
        )
        self.built = True

    @property
    def texts(self) -> Queue:
        """The latest texts, the last ones first; as many places as there have been fewer are empty."""
        return Queue(tf.convert_to_tensor(self.vectors), tf.convert_to_tensor(self.text_ids))

    def step(self, encoder: Encoder, inputs: dict[str, tf.Tensor], text_ids: tf.Tensor, *, pack: bool) -> None:
        """Moves the average on, and the texts of all replicas into the queue. To be called after each training step.

        Args:
            encoder: The one in training, after the step.
            inputs: This replica's anchors, as for the encoder.
            text_ids: `(n,)` int64, theirs.
            pack: As for the encoder.
        """
        # Every replica computes the same, and assigns it to its own copy of a variable.
        for own, other in zip(self.average.backbone.weights, encoder.backbone.weights, strict=True):
            own.assign(self.momentum * tf.convert_to_tensor(own) + (1 - self.momentum) * tf.convert_to_tensor(other))
        vectors = encoder.headed(self.average.pooled(inputs, pack=pack))
        size = self.text_ids.shape[0]
        for queue, new in ((self.vectors, unit(vectors)), (self.text_ids, text_ids)):
            queue.assign(tf.concat([replicas.gather(new), tf.convert_to_tensor(queue)], axis=0)[:size])
