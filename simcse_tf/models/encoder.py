"""The sentence encoder: a keras-hub backbone, a pooler, and SimCSE's head."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.config import EncoderConfig, Head, Pooling, check_max_length
from simcse_tf.data.strings import PromptName, batches_by_length, check_prompt_name, valid_texts
from simcse_tf.data.tokenization import tokenize, with_prompt
from simcse_tf.errors import UserError
from simcse_tf.models import packed
from simcse_tf.models.matryoshka import shortened
from simcse_tf.models.pooling import POOLERS, Pooler
from simcse_tf.serving.compact import Dtype, check_dim, quantized, smaller


class Encoder(keras.Model):
    """Maps texts, or their token ids, to sentence vectors.

    `encode` takes texts. `call` takes `{token_ids, padding_mask}`, each `(n, length)` int, and returns `(n, dim)`
    float32, not scaled to unit length.

    This is the function alone. `simcse_tf.formats.encoders.SentenceEncoder` can also read and write itself; it has the
    same arguments and raises the same errors.
    """

    def __init__(
        self,
        backbone: keras.Model,
        tokenizer: Any,
        pooling: Pooling = "cls",
        head: Head = "none",
        max_length: int | None = None,
        query_prompt: str = "",
        passage_prompt: str = "",
        matryoshka: Sequence[int] = (),
        dim: int | None = None,
        *,
        name: str = "sentence_encoder",
    ):
        super().__init__(name=name)
        positions = backbone.max_sequence_length
        self.config = EncoderConfig(pooling, head, max_length, query_prompt, passage_prompt, tuple(matryoshka), dim)
        self.max_length = min(positions, 512) if max_length is None else max_length
        check_length(self.max_length, positions)
        if dim is not None:
            check_dim(dim, backbone.hidden_dim)
        self.backbone = backbone
        self.tokenizer = tokenizer
        self._hidden: Any = None
        if (reason := packed.unsupported_reason(backbone)) is not None:
            logging.getLogger(__name__).warning("keras-hub's own forward is used, which is slower: %s.", reason)
            layers = POOLERS[pooling].layers
            outputs = [backbone.transformer_layers[i].output for i in layers]
            # A view of the backbone that ends where the pooler reads: the same layers, no copy of a weight.
            self._hidden = keras.Model(backbone.input, outputs, name="hidden_states")
        if hasattr(backbone, "pooled_dense"):
            # BERT's own pooler belongs to next-sentence prediction; nothing here reads it, so no gradient reaches it.
            backbone.pooled_dense.trainable = False
        self.head = None if head == "none" else _head(backbone.hidden_dim)
        # The backbone's dropout layers have their own, which the packed forward leaves alone.
        self._dropout = keras.random.SeedGenerator()
        self._encode = None
        # Every layer above is built by its own constructor.
        self.built = True

    def get_config(self) -> dict[str, Any]:
        serialized = {
            name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("backbone", "tokenizer")
        }
        return serialized | self.config.to_dict() | {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Encoder:
        for name in ("backbone", "tokenizer"):
            if isinstance(config[name], dict):
                config = config | {name: keras.saving.deserialize_keras_object(config[name], custom_objects)}
        return cls(**config)

    def save_own_variables(self, store: Any) -> None:
        # Keras saves no state of random numbers; with it, training that goes on draws the masks that it would have.
        for i, state in enumerate(self.dropout_seeds):
            store[f"dropout_seed_{i}"] = keras.ops.convert_to_numpy(state)

    def load_own_variables(self, store: Any) -> None:
        for i, state in enumerate(self.dropout_seeds):
            if f"dropout_seed_{i}" in store.keys():  # noqa: SIM118 (Keras' store is no mapping)
                state.assign(store[f"dropout_seed_{i}"])

    @property
    def dim(self) -> int:
        """How many numbers a sentence vector has. In training it is always the backbone's, whatever is kept of them."""
        return self.config.dim or self.backbone.hidden_dim

    @property
    def is_cut(self) -> bool:
        """Whether only the first numbers of a vector are kept."""
        return self.dim < self.backbone.hidden_dim

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes below `dim` that the vectors were trained to be cut to, the largest first."""
        return smaller(self.config.matryoshka, self.dim)

    @property
    def prompt_names(self) -> tuple[str, ...]:
        """What `encode` takes as `prompt_name`: `query` and `passage`; nothing if the encoder has no prompts."""
        return tuple(self.config.prompts)

    @property
    def head_at_inference(self) -> bool:
        """Whether the exported encoder ends with the head."""
        return self.config.head == "always" and self.config.pooling != "cls_before_pooler"

    def about(self) -> dict[str, Any]:
        """What an exported model says of itself, ready for JSON: its configuration, with nothing left open."""
        return self.config.to_dict() | {"dim": self.dim, "max_length": self.max_length}

    @property
    def dropout_seeds(self) -> list[keras.Variable]:
        """The states of dropout's random numbers: they decide the next masks and move on with every call."""
        if self._hidden is None:
            return [self._dropout.state]
        return [v for v in self.backbone.non_trainable_variables if v.path.endswith("seed_generator_state")]

    def call(self, inputs, training=False, pack=True):
        pooled = self.pooled(inputs, training=training, pack=pack)
        if self.head is not None and (training or self.head_at_inference):
            pooled = self.head(pooled, training=training)
        return pooled

    def pooled(
        self,
        inputs: dict[str, tf.Tensor],
        *,
        training: bool = False,
        pack: bool = True,
        snapshot: packed.Snapshot | None = None,
    ) -> tf.Tensor:
        """The sentence vectors before the head: `(n, dim)` float32.

        Args:
            inputs: As for `call`.
            training: Whether dropout is on.
            pack: Leave padding out of the computation. Shapes then depend on the data, which XLA and TPUs cannot
                compile.
            snapshot: For a graph that is exported; see `packed.Snapshot`.
        """
        pooler = POOLERS[self.config.pooling]
        hidden = self._hidden_states(inputs, pooler, training, pack, snapshot)
        return pooler.pool([tf.cast(h, tf.float32) for h in hidden], inputs["padding_mask"])

    def headed(self, pooled: tf.Tensor) -> tf.Tensor:
        """What the head makes of `pooled` vectors; without a head they themselves."""
        return pooled if self.head is None else self.head(pooled)

    def _hidden_states(
        self,
        inputs: dict[str, tf.Tensor],
        pooler: Pooler,
        training: bool,
        pack: bool,
        snapshot: packed.Snapshot | None,
    ) -> list[tf.Tensor]:
        if self._hidden is None:
            return packed.hidden_states(
                self.backbone,
                inputs,
                pooler.layers,
                first_only=pooler.first_only,
                seed=self._next_seed() if training else None,
                snapshot=snapshot,
                pack=pack,
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
        return self.finished(self.head(pooled) if self.head is not None and self.head_at_inference else pooled)

    def finished(self, vectors: tf.Tensor) -> tf.Tensor:
        """What `call` returns, as it is exported: `(..., dim)` float32 of unit length."""
        return shortened(vectors, self.dim)

    def encode(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 64,
        prompt_name: PromptName | None = None,
        dtype: Dtype = "float32",
    ) -> np.ndarray:
        """Encodes texts as the exported model would.

        Args:
            texts: One text, or any number of them.
            batch_size: Texts per call of the encoder; texts of like length go together.
            prompt_name: Which of the encoder's prompts is put before each text: `query`, `passage`, or none.
            dtype: `float32`; `int8`, 128 times the numbers; or `binary`, their signs, 8 to a byte, as `np.packbits`
                packs them.

        Returns:
            `(len(texts), dim)` float32, unit length, or int8; of `binary` `(len(texts), ceil(dim / 8))` uint8. In the
            order of `texts`; for a single text without the first axis.

        Raises:
            UserError: An element is not a string, the batch size is less than 1, there is no such dtype, or the encoder
                has no such prompt.
        """
        if isinstance(texts, str):
            return self.encode([texts], batch_size=batch_size, prompt_name=prompt_name, dtype=dtype)[0]
        both = self.encode_with_and_without_head(texts, batch_size=batch_size, prompt_name=prompt_name)
        return quantized(both[int(self.head_at_inference)], dtype)

    def encode_with_and_without_head(
        self, texts: Sequence[str], *, batch_size: int = 64, prompt_name: PromptName | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `encode`, for both answers at the price of one.

        Returns:
            `(without, with)`, each `(len(texts), dim)` float32 of unit length; the same array twice if there is no
            head.
        """
        if self._encode is None:
            text = tf.TensorSpec([None], tf.string)
            self._encode = tf.function(self._both, input_signature=[text], autograph=False)
        prompt = ""
        if prompt_name is not None:
            check_prompt_name(prompt_name, self.prompt_names)
            prompt = self.config.prompts[prompt_name]
        texts = valid_texts(texts, batch_size)
        vectors = np.zeros((2, len(texts), self.dim), "float32")
        for rows in batches_by_length(texts, batch_size):
            vectors[:, rows] = self._encode(with_prompt(prompt, tf.constant([texts[i] for i in rows])))
        return vectors[0], vectors[1]

    def _both(self, text: tf.Tensor) -> tf.Tensor:
        pooled = self.pooled(tokenize(self.tokenizer, text, max_length=self.max_length))
        return self.finished(tf.stack([pooled, self.headed(pooled)]))


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


def check_length(max_length: int, positions: int) -> None:
    """Checks that a longest text leaves room for a token, and that the backbone has positions for it.

    Raises:
        UserError: It does not, or there are too few.
    """
    check_max_length(max_length)
    if max_length > positions:
        raise UserError(f"`max_length` {max_length}: this encoder has only {positions} positions.")
