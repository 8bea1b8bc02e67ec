"""SimCSE as a Keras model: texts in, one contrastive training step."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.checks import check_choice, check_range
from simcse_tf.config import ACCUMULATION_IS_ANOTHER_LOSS, DropoutMasks, Head, HeadInit, Pooling
from simcse_tf.data import in_memory, pipeline, repetition
from simcse_tf.errors import UserError
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import SentenceEncoder, load_encoder
from simcse_tf.models.encoder import check_length
from simcse_tf.models.matryoshka import Matryoshka, sizes_of
from simcse_tf.models.objectives import InfoNCE, Objective, Queue, Views, count_false_negatives, nested
from simcse_tf.serving.compact import check_dim
from simcse_tf.training import gradcache, replicas, teaching
from simcse_tf.training.compute import keep_freed_memory
from simcse_tf.training.momentum import MomentumQueue

_Step = Literal["train", "test", "predict"]
# Rows of a list in a batch, as in Keras, where nothing is said.
_BATCH_SIZE = 32
# The lowest temperature that is learned, as in CLIP.
_LEAST_TEMPERATURE = 0.01
# What Keras takes beside the data and has no meaning here, with the reason.
_NO_TARGETS = (
    "what belongs to a text is part of its row: fit([(anchor, positive), ...]), fit([(text, label), ...]) or, with the "
    "objective CoSENT, fit([(text, text, score), ...])"
)
_TEACHER_READS_LISTS = (
    "the teacher reads lists of sentences, pairs or triplets, which it encodes before the first step. Otherwise give "
    "batches of token ids that have its vectors, `teacher` (batch, views, dim)"
)
_NO_WEIGHTS = "a row is an anchor and a negative of all others, so that no weight belongs to it alone"
_OBJECTIVE_IS_THE_LOSS = (
    "the loss is the model's objective, SimCSE(encoder, InfoNCE(temperature=0.05)): it compares the rows of a batch, "
    "which a loss of (y_true, y_pred) cannot"
)
_METRICS_ARE_CALLBACKS = (
    "there are no targets to compare with. STSCallback(pairs) puts val_spearman, val_alignment and val_uniformity into "
    "the logs"
)


@keras.saving.register_keras_serializable(package="simcse_tf")
class SimCSE(replicas.Model):
    """Trains a sentence encoder contrastively under `model.fit`.

        model = SimCSE.from_preset("minilm", pooling="avg", objective=InfoNCE(temperature=0.1))
        model.compile(optimizer=keras.optimizers.AdamW(3e-5))
        model.fit(["A sentence.", "Another one.", ...], batch_size=64)
        model.encoder.encode(["Text in, unit vector out."])

    `fit` and `evaluate` take texts, which the model tokenises: a list or an array of sentences or of rows `(anchor,
    positive, hard negative, ...)` with any number of hard negatives; or a batched `tf.data.Dataset` of `(batch,)`
    strings, of `(batch, views)` strings, or of tuples of `(batch,)` strings. A sentence alone is its own positive: it
    is encoded twice, and dropout makes the difference (unsupervised SimCSE). From a list, the rest that fills no batch
    is left out, unless there is no full batch: a contrastive loss depends on the size of its batch.

    From a list of `(text, label)`, where the label is the whole number of the text's class, each text's positive is
    drawn from its class, another one in every epoch of `fit`, and texts of its class are not among its negatives.
    Graded pairs `(text, text, score)`, in a data set `((batch, 2) strings, (batch,) scores)`, need the objective
    `CoSENT`.

    They also take batches that are tokenised already: dictionaries of `token_ids` and `padding_mask` `(batch, views,
    length)` int and `text_ids` `(batch, views)` int64, and with labels or scores `targets` `(batch,)` int64 or float32,
    as `simcse_tf.data.pipeline` makes them.

    If the encoder has prompts, the query prompt is put before the first text of a row and the passage prompt before the
    others; a sentence alone comes with either, where they differ.

    `predict` gives unit vectors, without prompts: `(n, dim)` for sentences, `(n, views, dim)` for rows.

    Args:
        encoder: The encoder to train.
        objective: The loss: an `Objective`, or a function `(local: Views, gathered: Views, row_offset) -> (n,)` losses.
            The sizes of a `Matryoshka` are saved with the encoder.
        dropout_masks: `same` encodes every view of a batch (with `chunk_size`, of a chunk) under the same masks, in one
            pass per view; for the ablation.
        chunk_size: Rows of a replica that training encodes at once; divides its share of the batch. None: all of them.
            See `simcse_tf.training.gradcache`.
        max_length: Longest text in training and `evaluate`, in tokens, [CLS] and [SEP] included. `predict` and the
            encoder take texts as long as the encoder allows.
        off_dropout: Training encodes the anchors once more, without dropout, and InfoNCE takes these for negatives, not
            the positives of other rows (SimCSE++; to be used with `InfoNCE(positive_scale=0.9)`). For sentences alone.
        queue_size: If given, InfoNCE has so many texts of earlier batches as negatives too (ESimCSE: 2.5 batches): see
            `simcse_tf.training.momentum`. The queue is part of this model, not of the encoder, and `evaluate` does
            without.
        queue_momentum: How much of the queue's moving average of the encoder stays, in each step.
        learn_temperature: Train InfoNCE's temperature too, from the objective's own on, down to 0.01; `fit` logs it.
        word_repetition: If given, `fit` repeats some tokens of every positive, below this share (ESimCSE, 0.32): see
            `simcse_tf.data.repetition`.
        projection: Size of a teacher's vectors, where `Distillation` is to learn vectors of another size than the
            encoder's: a linear layer from the ones to the others is trained with the encoder. By default the teacher's,
            where it is needed.
        teacher: What `Distillation`, or `InfoNCE` with a `mask_margin`, learns from: anything with `encode(texts)`,
            such as `simcse_tf.load` gives. It encodes the texts of a list before the first step of `fit` and of
            `evaluate`, and is not saved with the model.
        name: The model's name.

    Raises:
        UserError: A value that cannot be, or `max_length` (with `word_repetition` 9 more) is more than the encoder has
            positions for.
    """

    def __init__(
        self,
        encoder: SentenceEncoder,
        objective: Objective | None = None,
        dropout_masks: DropoutMasks = "independent",
        chunk_size: int | None = None,
        max_length: int = 32,
        *,
        off_dropout: bool = False,
        queue_size: int | None = None,
        queue_momentum: float = 0.995,
        learn_temperature: bool = False,
        word_repetition: float | None = None,
        projection: int | None = None,
        teacher: Any = None,
        name: str = "simcse",
    ):
        super().__init__(name=name)
        if objective is not None and not callable(objective):
            raise UserError(f"`objective` {objective!r}: expected an objective, such as InfoNCE(temperature=0.1).")
        check_choice("dropout_masks", dropout_masks, get_args(DropoutMasks))
        if chunk_size is not None:
            check_range("chunk_size", chunk_size, low=1)
        if queue_size is not None:
            check_range("queue_size", queue_size, low=1)
        check_range("queue_momentum", queue_momentum, low=0, high=1)
        if teacher is not None and projection is None and _learns_vectors(objective):
            dim = int(teacher.encode([""]).shape[-1])
            projection = None if dim == encoder.backbone.hidden_dim else dim
        if projection is not None:
            check_range("projection", projection, low=1)
            if not _learns_vectors(objective):
                raise UserError(f"`projection` {projection}: nothing learns a teacher's vectors. Omit it.")
        check_length(max_length, encoder.backbone.max_sequence_length)
        if word_repetition is not None:
            check_range("word_repetition", word_repetition, above=0, high=1, why="a share of a text's tokens")
            _check_room(max_length, encoder.backbone.max_sequence_length)
        if sizes := sizes_of(objective):
            check_dim(max(sizes), encoder.backbone.hidden_dim)
            # They are saved with the encoder.
            encoder.config = dataclasses.replace(encoder.config, matryoshka=sizes)
        self.encoder = encoder
        self.objective = objective or InfoNCE()
        self.dropout_masks = dropout_masks
        self.chunk_size = chunk_size
        self.max_length = max_length
        self.off_dropout = off_dropout
        self.queue_size = queue_size
        self.queue_momentum = queue_momentum
        self.learn_temperature = learn_temperature
        self.word_repetition = word_repetition
        self._check_objective()
        self._queue = None if queue_size is None else MomentumQueue(encoder, queue_size, queue_momentum)
        if learn_temperature:
            start = keras.initializers.Constant(math.log(nested(self.objective)[-1].temperature))
            self._log_temperature = self.add_weight(name="log_temperature", shape=(), initializer=start)
        # A function: Keras would take a model among the attributes for a part of this one.
        self._taught = None if teacher is None else functools.partial(teaching.vectors_of_texts, teacher)
        # Of the model and not of the encoder: it is not exported.
        self.projection = None if projection is None else _projection(encoder.backbone.hidden_dim, projection)
        # Views of a row in the texts that each step was traced for.
        self._train_views = self._test_views = self._predict_views = None
        logged = ["loss", "false_negatives", *["temperature"] * learn_temperature]
        self._means = {name: keras.metrics.Mean(name=name) for name in logged}
        self.built = True

    def _check_objective(self) -> None:
        """Checks that the objective has a use for what this model gives it."""
        inner = nested(self.objective)[-1]
        for name in ("off_dropout", "queue_size", "learn_temperature"):
            if getattr(self, name) and not isinstance(inner, InfoNCE):
                raise UserError(f"`{name}`: a part of InfoNCE, not of {_name(inner)}. Omit it.")
        if isinstance(self.objective, Matryoshka) and _learns_vectors(self.objective):
            raise UserError(
                "Matryoshka around a Distillation of vectors: a teacher's vectors are not cut to these sizes. Put the "
                "Matryoshka into the Distillation, or learn listwise."
            )
        if self.off_dropout and self.dropout_masks == "same":
            raise UserError(
                "`off_dropout` and `dropout_masks` same: its two views are equal, and nothing is to be learned. Omit "
                "one of them."
            )
        if self.off_dropout and inner.directions != ("a2p",):
            raise UserError(
                f"`off_dropout` and `directions` {' '.join(inner.directions)}: anchors without dropout are compared "
                "with each other alone. Omit one of them."
            )

    @classmethod
    def from_preset(
        cls,
        preset: str,
        *,
        pooling: Pooling | None = None,
        head: Head | None = None,
        objective: Objective | None = None,
        max_length: int = 32,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        dropout: float = 0.1,
        dropout_masks: DropoutMasks = "independent",
        chunk_size: int | None = None,
        dtype: str = "float32",
        head_init: HeadInit = "random",
        layers: tuple[int, ...] = (),
        **settings: Any,
    ) -> SimCSE:
        """Makes a model over `SentenceEncoder.from_preset`, whose arguments and errors it shares.

        Args:
            preset: `minilm`, a keras-hub preset name, or a directory: keras-hub's, Hugging Face's, a run's.
            pooling: By default what the preset says of itself, else `cls`.
            head: The MLP: `train_only` (unsupervised SimCSE), `always` (supervised SimCSE) or `none`. By default as the
                preset's, where that has one, else `train_only`.
            objective: As for the class.
            max_length: As for the class.
            query_prompt: Put before anchors, and later before queries, such as `query: `. By default the preset's.
            passage_prompt: Put before the other texts of a row, and later before the texts that queries should find.
                By default the preset's.
            dropout: Rate of the backbone's dropout.
            dropout_masks: As for the class.
            chunk_size: As for the class.
            dtype: A Keras dtype policy for the backbone, such as `mixed_bfloat16`.
            head_init: Where a head starts that the preset has not saved.
            layers: Which of the preset's transformer layers to keep, by default all: see `SentenceEncoder.from_preset`.
            **settings: Others of the class.
        """
        origin = presets.locate(preset)
        config = origin.encoder_config(
            pooling=pooling, head=head, query_prompt=query_prompt, passage_prompt=passage_prompt
        )
        if head is None and config.head == "none":
            config = dataclasses.replace(config, head="train_only")
        encoder = load_encoder(origin, config, dropout=dropout, dtype=dtype, head_init=head_init, layers=layers)
        return cls(encoder, objective, dropout_masks, chunk_size, max_length, **settings)

    def export(self, filepath, format="tf_saved_model", **kwargs):
        """Exports the encoder; see `SentenceEncoder.export`."""
        return self.encoder.export(filepath, format, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "dropout_masks": self.dropout_masks,
            "chunk_size": self.chunk_size,
            "max_length": self.max_length,
            "off_dropout": self.off_dropout,
            "queue_size": self.queue_size,
            "queue_momentum": self.queue_momentum,
            "learn_temperature": self.learn_temperature,
            "word_repetition": self.word_repetition,
            "projection": None if self.projection is None else self.projection.units,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> SimCSE:
        for name in ("encoder", "objective"):
            if isinstance(config[name], dict):
                config = config | {name: keras.saving.deserialize_keras_object(config[name], custom_objects)}
        return cls(**config)

    @property
    def metrics(self):
        return list(self._means.values())

    @property
    def pack(self) -> bool:
        """Whether padding is left out of the computation; XLA and TPUs want shapes that do not depend on the data."""
        return not (self.jit_compile or replicas.on_tpu(self.distribute_strategy))

    def compile(self, optimizer, loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs):
        """As Keras' own, with an optimizer alone.

        Raises:
            ValueError: A loss or metrics are given, or the optimizer accumulates gradients.
        """
        for name, value, reason in (
            ("loss", loss, _OBJECTIVE_IS_THE_LOSS),
            ("loss_weights", loss_weights, _OBJECTIVE_IS_THE_LOSS),
            ("metrics", metrics, _METRICS_ARE_CALLBACKS),
            ("weighted_metrics", weighted_metrics, _METRICS_ARE_CALLBACKS),
        ):
            if value is not None:
                raise UserError(f"compile({name}=...): {reason}.")
        super().compile(optimizer, **kwargs)
        # A LossScaleOptimizer has another optimizer inside.
        for one in (self.optimizer, getattr(self.optimizer, "inner_optimizer", None)):
            if getattr(one, "gradient_accumulation_steps", None):
                raise UserError(
                    f"gradient_accumulation_steps={one.gradient_accumulation_steps}: {ACCUMULATION_IS_ANOTHER_LOSS}"
                )
        # Under a strategy `fit` would build it too late, inside the step.
        with self.distribute_strategy.scope():
            self.optimizer.build(self.trainable_variables)

    def compile_from_config(self, config):
        # Keras leaves this to models with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        *args,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        steps_per_epoch=None,
        validation_batch_size=None,
        **kwargs,
    ):
        """As Keras' own, with texts; see the class.

        `keras.utils.set_random_seed` decides the order of a list. Several workers must call it with the same seed.

        Raises:
            UserError: Targets or weights are given, or a row is not like the others.
        """
        _refuse(y=y, sample_weight=sample_weight, class_weight=class_weight)
        keep_freed_memory()
        if validation_split:
            x, validation_data = _split(x, validation_split, validation_data)
        if validation_data is not None:
            validation_data = self._batches("test", validation_data, validation_batch_size or batch_size)
        batches = self._batches("train", x, batch_size, shuffle=shuffle)
        is_text = batches is not x
        if is_text and shuffle and not isinstance(x, tf.data.Dataset):
            # What is shuffled has no end.
            steps_per_epoch = steps_per_epoch or max(1, len(x) // (batch_size or _BATCH_SIZE))
        return super().fit(
            batches,
            None,
            None if is_text else batch_size,
            *args,
            validation_data=validation_data,
            # Lists are shuffled by now, and a data set is in the order that its maker gave it.
            shuffle=shuffle and not is_text,
            steps_per_epoch=steps_per_epoch,
            validation_batch_size=validation_batch_size,
            **kwargs,
        )

    def evaluate(self, x=None, y=None, batch_size=None, *args, sample_weight=None, **kwargs):
        """As Keras' own, with texts; see the class. Without dropout a sentence alone equals its positive.

        Raises:
            UserError: Targets or weights are given, or a row is not like the others.
        """
        _refuse(y=y, sample_weight=sample_weight)
        batches = self._batches("test", x, batch_size)
        return super().evaluate(batches, None, batch_size if batches is x else None, *args, **kwargs)

    def predict(self, x, batch_size=None, *args, **kwargs):
        """Unit vectors, as the exported encoder gives them.

        Args:
            x: Texts or batches of token ids, as for `fit`.
            batch_size: Rows per call of the encoder, 32 by default.
            *args: As for Keras' own.
            **kwargs: Likewise.

        Returns:
            `(n, dim)` float32 for sentences, `(n, views, dim)` for rows of several views and for token ids.
        """
        if isinstance(x, tf.data.Dataset):
            texts = in_memory.string_batches(x)
        else:
            rows = in_memory.rows(x)
            # Vectors are of texts, whatever stands beside them.
            texts = None if rows is None else in_memory.batched(in_memory.Rows(rows.texts), batch_size or _BATCH_SIZE)
        if texts is None:
            return super().predict(x, batch_size, *args, **kwargs)
        if isinstance(texts.element_spec, tuple):
            texts = texts.map(lambda texts, targets: texts)
        self._expect_views("predict", texts.element_spec.shape[1])
        tokenizer, most = self.encoder.tokenizer, self.encoder.max_length
        batches = pipeline.tokenized(texts, tokenizer, max_length=most, pad=not self.pack)
        vectors = super().predict(batches, None, *args, **kwargs)
        return vectors[:, 0] if vectors.shape[1] == 1 else vectors

    def _batches(self, step: _Step, x: Any, batch_size: int | None, *, shuffle: bool = False) -> Any:
        """Texts as batches of token ids, each replica's rows where it wants them; anything else as it is."""
        if isinstance(x, tf.data.Dataset):
            texts = in_memory.string_batches(x)
            if texts is None:
                return x
            if self._taught is not None:
                raise UserError(f"a data set of texts: {_TEACHER_READS_LISTS}.")
            strings, *numbers = tf.nest.flatten(texts.element_spec)
            self._check_rows(strings.shape[1], numbers[0].dtype.as_numpy_dtype if numbers else None)
            return self._distributed(step, texts)
        rows = in_memory.rows(x)
        if rows is None:
            return x
        self._check_rows(rows.texts.shape[1], None if rows.targets is None else rows.targets.dtype)
        batch_size = min(batch_size or _BATCH_SIZE, len(rows))
        for one in nested(self.objective):
            if batch_size < 2 and getattr(one, "compares_rows", False):
                raise UserError(f"{batch_size} row in a batch: {_name(one)} needs at least 2, which it compares.")
        if self._taught is not None:
            if rows.targets is not None:
                raise UserError(f"rows that end in numbers: {_TEACHER_READS_LISTS}.")
            rows = dataclasses.replace(rows, taught=self._taught(rows.texts))
        # Drawn from what keras.utils.set_random_seed seeds, so that all workers shuffle alike.
        seed = np.random.randint(2**31) if shuffle else None
        if rows.targets is not None and rows.texts.shape[1] == 1:
            source = in_memory.classes(rows)
            if seed is not None:
                feed = pipeline.Feed(source, batch_size=batch_size, seed=seed)
                return self._distributed(step, pipeline.text_batches(feed))
            rows = in_memory.rows(list(source.rows()))
            assert rows is not None
        texts = in_memory.batched(rows, batch_size, drop_remainder=True, shuffle_seed=seed)
        return self._distributed(step, texts)

    def _check_rows(self, views: int, numbers: Any) -> None:
        """Checks that the objective can do something with rows of so many texts, and numbers of such a type."""
        target = getattr(self.objective, "target", None)
        name = _name(nested(self.objective)[-1])
        if target == "score" and (views != 2 or numbers is None):
            raise UserError(f"{name} needs rows of two texts and a score: fit([(text, text, 0.8), ...]).")
        if self.off_dropout and (views != 1 or numbers is not None):
            raise UserError(f"`off_dropout`: for sentences alone, not for rows of {views} texts or with numbers.")
        if self.word_repetition is not None and target == "score":
            raise UserError("`word_repetition`: needs positives, and these pairs have scores. Omit it.")
        if numbers is None or target == "score":
            return
        if self._queue is not None:
            raise UserError("`queue_size`: the classes of earlier texts are not kept. Omit it, or the labels.")
        if target != "label":
            raise UserError(f"{name} has no use for the numbers at the end of the rows. Omit them.")
        if views != 1 or not np.issubdtype(numbers, np.integer):
            raise UserError(
                f"{name} takes numbers for the classes of single texts: whole numbers, and from a list, "
                "fit([(text, 3), ...]). For pairs with scores, use CoSENT."
            )

    def _distributed(self, step: _Step, texts: tf.data.Dataset) -> Any:
        """Batches of text as batches of token ids, cut into equal shares where there are several replicas."""
        spec = tf.nest.flatten(texts.element_spec)[0]
        self._expect_views(step, spec.shape[1])
        repeated = None
        if step == "train" and self.word_repetition is not None:
            # Drawn as the order of a list is.
            repeated = pipeline.Repetition(self.word_repetition, seed=np.random.randint(2**31))
        batches = pipeline.tokenized(
            texts,
            self.encoder.tokenizer,
            max_length=self.max_length,
            prompts=self.encoder.config.prompts,
            repetition=repeated,
        )
        strategy, batch_size = self.distribute_strategy, spec.shape[0]
        if strategy.num_replicas_in_sync == 1:
            return batches
        if batch_size is None:
            raise UserError(
                "the data set's batches differ in size, and replicas need equal shares: batch it with "
                "dataset.batch(64, drop_remainder=True)."
            )
        replicas.check_batch_size(batch_size, strategy)
        return replicas.distribute(batches, batch_size, strategy)

    def _expect_views(self, step: _Step, views: int) -> None:
        """Traces a step anew where its rows have another number of views: TensorFlow would make it a variable.

        That step alone: a callback may predict while `fit` goes on.
        """
        if views != getattr(self, f"_{step}_views"):
            setattr(self, f"_{step}_views", views)
            setattr(self, f"{step}_function", None)

    def call(self, batch, training=False):
        """Encodes every view in one pass of the encoder: `(batch, views, length)` to `(batch, views, dim)` float32."""
        inputs = {name: batch[name] for name in ("token_ids", "padding_mask")}
        if training and self.dropout_masks == "same":
            return self._under_the_same_masks(inputs)
        shape = tf.shape(inputs["token_ids"])
        flat = {name: tf.reshape(x, [shape[0] * shape[1], shape[2]]) for name, x in inputs.items()}
        vectors = self.encoder(flat, training=training, pack=self.pack)
        return tf.reshape(vectors, [-1, inputs["token_ids"].shape[1], vectors.shape[-1]])

    def _under_the_same_masks(self, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
        seeds = self.encoder.dropout_seeds
        start = [tf.identity(seed.value) for seed in seeds]
        vectors = []
        for view in range(inputs["token_ids"].shape[1]):
            for seed, value in zip(seeds, start, strict=True):
                seed.assign(value)
            one = {name: x[:, view] for name, x in inputs.items()}
            vectors.append(self.encoder(one, training=True, pack=self.pack))
        return tf.stack(vectors, axis=1)

    def train_step(self, data):
        batch = self._with_positives(_inputs(data))
        gradients, logs = self.gradients(batch)
        self.optimizer.apply(replicas.shared_gradients(gradients), self.trainable_variables)
        if self._queue is not None:
            self._queue.step(self.encoder, _anchors(batch), batch["text_ids"][:, 0], pack=self.pack)
        return self._report(logs)

    def test_step(self, data):
        batch = self._with_positives(_inputs(data))
        vectors = self(batch)
        if self.off_dropout:
            vectors = tf.concat([vectors, vectors[:, :1]], axis=1)
        return self._report(self._compare(vectors, batch))

    def predict_step(self, data):
        return self.encoder.finished(self(_inputs(data)))

    def _with_positives(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A text alone in its row is its own positive, if the objective needs one: encoded under two dropout masks."""
        if batch["text_ids"].shape[1] > 1 or getattr(self.objective, "views", 2) == 1:
            return batch
        return {name: x if name == "targets" else tf.repeat(x, 2, axis=1) for name, x in batch.items()}

    def gradients(self, batch: dict[str, tf.Tensor]) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        """What this replica has to say of a batch with as many views as the objective needs, in training.

        Returns:
            The gradients of its share of the loss, dense and scaled as the optimizer wants, in the order of
            `trainable_variables`; and its share of the step's logs.
        """
        variables = self.trainable_variables
        queue = None if self._queue is None else self._queue.texts
        if self.chunk_size is None:
            with tf.GradientTape() as tape:
                logs = self._compare(self._train_vectors(batch), batch, queue)
                scaled = self.optimizer.scale_loss(logs["loss"])
            # Embedding gradients arrive as indexed slices; AdamW moves every row anyway.
            return [tf.convert_to_tensor(g) for g in tape.gradient(scaled, variables)], logs

        inputs = {name: batch[name] for name in ("token_ids", "padding_mask")}
        vectors, backpropagate = gradcache.encode(
            self._train_vectors, inputs, self.chunk_size, self.encoder.dropout_seeds
        )
        # What the loss has beside the vectors: a temperature, a projection.
        encoders = self.encoder.trainable_variables
        others = [v for v in variables if all(v is not one for one in encoders)]
        with tf.GradientTape() as tape:
            tape.watch(vectors)
            logs = self._compare(vectors, batch, queue)
            scaled = self.optimizer.scale_loss(logs["loss"])
        of_vectors, *of_others = tape.gradient(scaled, [vectors, *others])
        gradients = [*backpropagate(of_vectors, encoders), *of_others]
        places = {id(variable): i for i, variable in enumerate([*encoders, *others])}
        return [gradients[places[id(variable)]] for variable in variables], logs

    def _train_vectors(self, batch: dict[str, tf.Tensor]) -> tf.Tensor:
        """`(batch, views, dim)` under dropout; with `off_dropout`, the anchors without it stand behind the views."""
        vectors = self(batch, training=True)
        if not self.off_dropout:
            return vectors
        without = self.encoder.headed(self.encoder.pooled(_anchors(batch), pack=self.pack))
        return tf.concat([vectors, without[:, tf.newaxis]], axis=1)

    def _report(self, logs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A step's logs are its own, over all replicas; Keras puts their means into the epoch's logs."""
        logs = {name: replicas.total(value) for name, value in logs.items()}
        # At the end of a data set TensorFlow starts a step whose batch never comes. What does not wait for the batch,
        # as a mean's count of steps would not, it may still do.
        with tf.control_dependencies(list(logs.values())):
            for name, value in logs.items():
                self._means[name].update_state(value)
        return logs

    def _compare(
        self, vectors: tf.Tensor, batch: dict[str, tf.Tensor], queue: Queue | None = None
    ) -> dict[str, tf.Tensor]:
        """This replica's share of the mean loss over the global batch and of the false negatives: scalars."""
        views = batch["text_ids"].shape[1]
        local = Views(vectors, batch["text_ids"], batch.get("targets"), teacher=batch.get("teacher"))
        if self.off_dropout:
            local = local._replace(vectors=vectors[:, :views], without_dropout=vectors[:, views])
        gathered = Views(*(None if x is None else replicas.gather(x) for x in local))._replace(queue=queue)
        if self.projection is not None:
            local = local._replace(projected=self.projection(local.vectors))
        logs = {}
        if self.learn_temperature:
            temperature = tf.maximum(tf.exp(tf.convert_to_tensor(self._log_temperature)), _LEAST_TEMPERATURE)
            gathered = gathered._replace(temperature=temperature)
            logs["temperature"] = temperature / replicas.count()
        rows = tf.shape(vectors)[0]
        losses = self.objective(local, gathered, replicas.row_offset(rows))
        loss = tf.reduce_sum(losses) / tf.cast(rows * replicas.count(), tf.float32)
        # A single view has no negatives, and neither have graded pairs.
        graded = getattr(self.objective, "target", None) == "score"
        found = tf.constant(0.0) if views == 1 or graded else count_false_negatives(local, gathered)
        return {"loss": loss, "false_negatives": found} | logs


def _learns_vectors(objective: Any) -> bool:
    """Whether an objective, or what it is wrapped around, learns a teacher's vectors themselves."""
    return any(getattr(each, "vectors_weight", 0) for each in nested(objective))


def _projection(dim: int, teacher_dim: int) -> keras.layers.Dense:
    """From the encoder's vectors to the teacher's; linear, so that what is similar stays similar."""
    dense = keras.layers.Dense(teacher_dim, use_bias=False, dtype="float32", name="projection")
    dense.build((None, None, dim))
    return dense


def _inputs(data: Any) -> dict[str, tf.Tensor]:
    """The batch alone, where Keras hands it over with its places for targets and weights."""
    return keras.utils.unpack_x_y_sample_weight(data)[0]


def _anchors(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The first view alone, as the encoder takes it."""
    return {name: batch[name][:, 0] for name in ("token_ids", "padding_mask")}


def _name(objective: Any) -> str:
    return type(objective).__name__


def _check_room(max_length: int, positions: int) -> None:
    """Checks that positives with repeated tokens have positions."""
    if max_length + repetition.MOST > positions:
        raise UserError(
            f"`max_length` {max_length}: `word_repetition` makes texts up to {repetition.MOST} tokens longer, and this "
            f"encoder has only {positions} positions. Lower it to {positions - repetition.MOST}."
        )


def _split(x: Any, share: float, validation_data: Any) -> tuple[in_memory.Rows, in_memory.Rows]:
    rows = in_memory.rows(x)
    if rows is None or validation_data is not None:
        raise UserError("validation_split cuts off the end of a list or an array. Otherwise give validation_data.")
    at = round(len(rows) * (1 - share))
    if not 0 < at < len(rows):
        raise UserError(f"validation_split={share}: leaves {at} of {len(rows)} rows to train on.")
    return rows.part(slice(at)), rows.part(slice(at, None))


def _refuse(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise UserError(f"{name}=...: {_NO_TARGETS if name == 'y' else _NO_WEIGHTS}.")
