"""The sentence encoder: a keras-hub backbone, a pooler, and SimCSE's head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.config import EncoderConfig
from simcse_tf.data.tokenization import tokenize
from simcse_tf.errors import UserError
from simcse_tf.models import packed
from simcse_tf.models.objectives import unit
from simcse_tf.models.pooling import POOLERS, Pooler


class SentenceEncoder(keras.Model):
    """Maps token ids to sentence vectors.

    `call` takes `{token_ids, padding_mask}`, each `(n, length)` int, and returns `(n, dim)` float32, not scaled to unit
    length.

    Args:
        backbone: A keras-hub backbone of the BERT family.
        tokenizer: The backbone's keras-hub tokenizer.
        config: Pooler, head and maximum length; saved with the weights.

    Raises:
        UserError: `max_length` is more than the backbone has positions for.
    """

    def __init__(self, backbone: keras.Model, tokenizer: Any, config: EncoderConfig):
        super().__init__(name="sentence_encoder")
        positions = backbone.max_sequence_length
        self.max_length = min(positions, 512) if config.max_length is None else config.max_length
        if self.max_length > positions:
            raise UserError(f"maximum length {self.max_length}: this encoder has only {positions} positions.")
        self.backbone = backbone
        self.tokenizer = tokenizer
        self.config = config
        self._hidden: Any = None
        if (reason := packed.unsupported_reason(backbone)) is not None:
            logging.getLogger(__name__).warning("keras-hub's own forward is used, which is slower: %s.", reason)
            layers = POOLERS[config.pooling].layers
            outputs = [backbone.transformer_layers[i].output for i in layers]
            # A view of the backbone that ends where the pooler reads: the same layers, no copy of a weight.
            self._hidden = keras.Model(backbone.input, outputs, name="hidden_states")
        if hasattr(backbone, "pooled_dense"):
            # BERT's own pooler belongs to next-sentence prediction; nothing here reads it, so no gradient reaches it.
            backbone.pooled_dense.trainable = False
        self.head = None if config.head == "none" else _head(backbone.hidden_dim)
        # The backbone's dropout layers have their own, which the packed forward leaves alone.
        self._dropout = keras.random.SeedGenerator()
        # Whether training leaves padding out; XLA and TPUs want shapes that do not depend on the data.
        self.pack_in_training = True
        self._encode = None
        # Every layer above is built by its own constructor.
        self.built = True

    @property
    def dim(self) -> int:
        """Length of a sentence vector."""
        return self.backbone.hidden_dim

    @property
    def head_at_inference(self) -> bool:
        """Whether the exported encoder ends with the head."""
        return self.config.head == "always" and self.config.pooling != "cls_before_pooler"

    @property
    def dropout_seeds(self) -> list[keras.Variable]:
        """The states of dropout's random numbers: they decide the next masks and move on with every call."""
        if self._hidden is None:
            return [self._dropout.state]
        return [v for v in self.backbone.non_trainable_variables if v.path.endswith("seed_generator_state")]

    def call(self, inputs, training=False):
        pooled = self.pooled(inputs, training=training)
        if self.head is not None and (training or self.head_at_inference):
            pooled = self.head(pooled, training=training)
        return pooled

    def pooled(
        self, inputs: dict[str, tf.Tensor], *, training: bool = False, snapshot: packed.Snapshot | None = None
    ) -> tf.Tensor:
        """The sentence vectors before the head: `(n, dim)` float32.

        Args:
            inputs: As for `call`.
            training: Whether dropout is on.
            snapshot: For a graph that is exported; see `packed.Snapshot`.
        """
        pooler = POOLERS[self.config.pooling]
        hidden = self._hidden_states(inputs, pooler, training, snapshot)
        return pooler.pool([tf.cast(h, tf.float32) for h in hidden], inputs["padding_mask"])

    def _hidden_states(
        self, inputs: dict[str, tf.Tensor], pooler: Pooler, training: bool, snapshot: packed.Snapshot | None
    ) -> list[tf.Tensor]:
        if self._hidden is None:
            return packed.hidden_states(
                self.backbone,
                inputs,
                pooler.layers,
                first_only=pooler.first_only,
                seed=self._next_seed() if training else None,
                snapshot=snapshot,
                pack=self.pack_in_training or not training,
            )
        features = dict(inputs)
        if "segment_ids" in self.backbone.input:
            features["segment_ids"] = tf.zeros_like(inputs["token_ids"])
        hidden = self._hidden(features, training=training)
        return hidden if isinstance(hidden, list) else [hidden]

    def _next_seed(self) -> Any:
        # The state is the same on all replicas, and their masks must not be.
        context = tf.distribute.get_replica_context()
        assert context is not None, "training runs in a replica"
        return tf.random.fold_in(self._dropout.next(), context.replica_id_in_sync_group)

    def encode_tensor(self, text: tf.Tensor, snapshot: packed.Snapshot | None = None) -> tf.Tensor:
        """What is exported and served: `(n,)` strings to `(n, dim)` float32 of unit length. For use inside a graph.

        Args:
            text: The texts.
            snapshot: If given, has the backbone's weights from the first call on, but for the tables of words and
                positions.
        """
        inputs = tokenize(self.tokenizer, text, max_length=self.max_length)
        pooled = self.pooled(inputs, snapshot=snapshot)
        return unit(self.head(pooled) if self.head is not None and self.head_at_inference else pooled)

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Encodes texts as the exported model would.

        Args:
            texts: Any number of texts.
            batch_size: Texts per call of the encoder; texts of like length go together.

        Returns:
            `(len(texts), dim)` float32, unit length, in the order of `texts`.
        """
        return self.encode_with_and_without_head(texts, batch_size=batch_size)[int(self.head_at_inference)]

    def encode_with_and_without_head(
        self, texts: Sequence[str], *, batch_size: int = 64
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `encode`, for both answers at the price of one.

        Returns:
            `(without, with)`, each `(len(texts), dim)` float32 of unit length; the same array twice if there is no
            head.
        """
        if self._encode is None:
            self._encode = tf.function(self._both, input_signature=[tf.TensorSpec([None], tf.string)])
        vectors = np.zeros((2, len(texts), self.dim), "float32")
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), batch_size):
            rows = by_length[start : start + batch_size]
            vectors[:, rows] = self._encode(tf.constant([texts[i] for i in rows]))
        return vectors[0], vectors[1]

    def _both(self, text: tf.Tensor) -> tf.Tensor:
        pooled = self.pooled(tokenize(self.tokenizer, text, max_length=self.max_length))
        return unit(tf.stack([pooled, pooled if self.head is None else self.head(pooled)]))


def _head(dim: int) -> keras.Sequential:
    """SimCSE's MLP: one dense layer and tanh, built like BERT's pooler but fresh (Gao et al. 2021, section 4)."""
    dense = keras.layers.Dense(
        dim,
        activation="tanh",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
        dtype="float32",
        name="dense",
    )
    return keras.Sequential([keras.Input((dim,)), dense], name="head")
