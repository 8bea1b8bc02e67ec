"""SimCSE as a Keras model: views in, one contrastive training step."""

from __future__ import annotations

import keras
import tensorflow as tf

from simcse_tf.config import ACCUMULATION_IS_ANOTHER_LOSS, DropoutMasks
from simcse_tf.models.encoder import SentenceEncoder
from simcse_tf.models.objectives import InfoNCE, Objective, Views, count_false_negatives
from simcse_tf.training import gradcache, replicas


class SimCSE(replicas.Model):
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
        objective: `(local: Views, gathered: Views, row_offset) -> (n,)` losses; see `simcse_tf.models.objectives`.
        dropout_masks: `same` encodes every view of a batch (with `chunk_size`, of a chunk) under the same masks, in one
            pass per view; for the ablation.
        chunk_size: Rows of a replica that training encodes at once; divides its share of the batch. None: all of them.
            See `simcse_tf.training.gradcache`.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        objective: Objective | None = None,
        dropout_masks: DropoutMasks = "independent",
        chunk_size: int | None = None,
    ):
        super().__init__(name="simcse")
        self.encoder = encoder
        self.objective = objective or InfoNCE()
        self.dropout_masks = dropout_masks
        self.chunk_size = chunk_size
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", "false_negatives")}
        self.built = True

    @property
    def metrics(self):
        return list(self._means.values())

    def compile(self, optimizer, **kwargs):
        """As Keras' own.

        Raises:
            ValueError: The optimizer accumulates gradients.
        """
        super().compile(optimizer, **kwargs)
        # A LossScaleOptimizer has another optimizer inside.
        for one in (self.optimizer, getattr(self.optimizer, "inner_optimizer", None)):
            if getattr(one, "gradient_accumulation_steps", None):
                raise ValueError(
                    f"gradient_accumulation_steps={one.gradient_accumulation_steps}: {ACCUMULATION_IS_ANOTHER_LOSS} "
                    "In Python: SimCSE(..., chunk_size=...)."
                )
        # Under a strategy `fit` would build it too late, inside the step.
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)
        self.encoder.pack_in_training = not (self.jit_compile or replicas.on_tpu(self.distribute_strategy))

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
        gradients, logs = self.gradients(_two_views(data))
        self.optimizer.apply(replicas.shared_gradients(gradients), self.trainable_variables)
        return self._report(logs)

    def test_step(self, data):
        batch = _two_views(data)
        return self._report(self._compare(self(batch), batch["text_ids"]))

    def gradients(self, batch: dict[str, tf.Tensor]) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """What this replica has to say of a batch with 2 or 3 views, in training.

        Returns:
            The gradients of its share of the loss, dense and scaled as the optimizer wants, in the order of
            `trainable_variables`; and its share of the step's logs.
        """
        variables = self.trainable_variables
        if self.chunk_size is None:
            with tf.GradientTape() as tape:
                logs = self._compare(self(batch, training=True), batch["text_ids"])
                scaled = self.optimizer.scale_loss(logs["loss"])
            # Embedding gradients arrive as indexed slices; AdamW moves every row anyway.
            return [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)], logs

        def encode(chunk):
            return self(chunk, training=True)

        inputs = {name: batch[name] for name in ("token_ids", "padding_mask")}
        vectors, backpropagate = gradcache.encode(encode, inputs, self.chunk_size, self.encoder.dropout_seeds)
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            logs = self._compare(vectors, batch["text_ids"])
            scaled = self.optimizer.scale_loss(logs["loss"])
        return backpropagate(tape.gradient(scaled, vectors), variables), logs

    def _report(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A step's logs are its own, over all replicas; Keras puts their means into the epoch's logs."""
        logs = {name: replicas.total(value) for name, value in logs.items()}
        for name, value in logs.items():
            self._means[name].update_state(value)
        return logs

    def _compare(self, vectors: tf.Tensor, text_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """This replica's share of the mean loss over the global batch and of the false negatives: scalars."""
        local = Views(vectors, text_ids)
        gathered = Views(*(replicas.gather(x) for x in local))
        rows = tf.shape(vectors)[0]
        losses = self.objective(local, gathered, replicas.row_offset(rows))
        loss = tf.reduce_sum(losses) / tf.cast(rows * replicas.count(), tf.float32)
        return {"loss": loss, "false_negatives": count_false_negatives(local, gathered)}


def _two_views(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """A single view is its own positive; the encoder sees it twice, under two dropout masks."""
    if batch["text_ids"].shape[1] > 1:
        return batch
    return {name: tf.repeat(x, 2, axis=1) for name, x in batch.items()}
