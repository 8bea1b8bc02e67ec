"""SimCSE as a Keras model: views in, one contrastive training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from simcse_tf.config import DropoutMasks
from simcse_tf.models.encoder import SentenceEncoder
from simcse_tf.models.losses import InfoNCE, Objective, Views
from simcse_tf.training import replicas


class SimCSE(keras.Model):
    """Trains a sentence encoder contrastively under `model.fit`.

    The data are dictionaries: `token_ids` and `padding_mask` `(batch, views, length)` int and `text_ids` `(batch,
    views)` int64, as `simcse_tf.data.pipeline.token_batches` makes them. With 1 view a sentence is encoded twice, and
    dropout makes the difference (unsupervised SimCSE); 2 views are pairs; a third is a hard negative.

    Compile it with an optimizer alone:

        model = SimCSE(encoder, InfoNCE(temperature=0.05))
        model.compile(optimizer=keras.optimizers.AdamW(3e-5))
        model.fit(batches, steps_per_epoch=100)

    Args:
        encoder: The encoder to train.
        objective: `(own: Views, everyone: Views, first) -> (n,)` losses; see `simcse_tf.models.losses`.
        dropout_masks: `same` encodes every view of a batch under the same masks, in one pass per view; for the
            ablation.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        objective: Objective | None = None,
        dropout_masks: DropoutMasks = "independent",
    ):
        super().__init__(name="simcse")
        self.encoder = encoder
        self.objective = objective or InfoNCE()
        self.dropout_masks = dropout_masks
        self.mean_loss = keras.metrics.Mean(name="loss")
        self.built = True

    @property
    def metrics(self):
        return [self.mean_loss]

    def call(self, batch, training=False):
        """Encodes every view in one pass of the encoder: `(batch, views, length)` to `(batch, views, dim)` float32."""
        inputs = {name: batch[name] for name in ("token_ids", "padding_mask")}
        if training and self.dropout_masks == "same":
            return self._under_the_same_masks(inputs)
        shape = tf.shape(inputs["token_ids"])
        flat = {name: tf.reshape(x, [shape[0] * shape[1], shape[2]]) for name, x in inputs.items()}
        vectors = self.encoder(flat, training=training)
        return tf.reshape(vectors, [-1, inputs["token_ids"].shape[1], self.encoder.dim])

    def _under_the_same_masks(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        seeds = self.encoder.dropout_seeds
        start = [tf.identity(seed.value) for seed in seeds]
        vectors = []
        for view in range(inputs["token_ids"].shape[1]):
            for seed, value in zip(seeds, start, strict=True):
                seed.assign(value)
            vectors.append(self.encoder({name: x[:, view] for name, x in inputs.items()}, training=True))
        return tf.stack(vectors, axis=1)

    def train_step(self, data):
        batch = _two_views(data)
        with tf.GradientTape() as tape:
            loss = self._loss(batch, training=True)
            scaled = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        # Embedding gradients arrive as indexed slices; Keras' AdamW makes them dense anyway.
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)]
        self.optimizer.apply(replicas.shared_gradients(gradients), variables)
        return self._report(loss)

    def test_step(self, data):
        return self._report(self._loss(_two_views(data), training=False))

    def _report(self, loss: tf.Tensor) -> dict[str, tf.Tensor]:
        """A step's logs have its own loss; Keras puts the mean into the epoch's logs."""
        loss = replicas.total(loss)
        self.mean_loss.update_state(loss)
        return {"loss": loss}

    def _loss(self, batch, training: bool) -> tf.Tensor:
        """This replica's share of the mean loss over the global batch: a scalar."""
        own = Views(self(batch, training=training), batch["text_ids"])
        everyone = Views(*(replicas.gather(x) for x in own))
        rows = tf.shape(own.vectors)[0]
        losses = self.objective(own, everyone, replicas.first_row(rows))
        return tf.reduce_sum(losses) / tf.cast(rows * replicas.count(), tf.float32)


def _two_views(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A single view is its own positive; the encoder sees it twice, under two dropout masks."""
    if batch["text_ids"].shape[1] > 1:
        return batch
    return {name: tf.repeat(x, 2, axis=1) for name, x in batch.items()}
