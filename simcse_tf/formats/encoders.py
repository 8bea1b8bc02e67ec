"""The encoder that reads and writes itself: `save_encoder` as a run saves it, `load_encoder` from any `Origin`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import numpy as np

from simcse_tf.checks import check_choice
from simcse_tf.config import EncoderConfig, Head, HeadInit, Pooling, Quantize, choose_layers
from simcse_tf.data.tokenization import check_prompts
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, whole_directory
from simcse_tf.formats import encoder_json, huggingface, keras_hub, litert, presets, savedmodel, sentence_transformers
from simcse_tf.formats.presets import Origin
from simcse_tf.models.backbone import with_layers
from simcse_tf.models.encoder import Encoder


@keras.saving.register_keras_serializable(package="simcse_tf")
class SentenceEncoder(Encoder):
    """Maps texts, or their token ids, to sentence vectors; reads and writes itself.

        encoder = SentenceEncoder.from_preset("minilm")
        encoder.encode(["Text in, unit vector out."])  # (1, 384)

    `encode` takes texts. As a Keras model it takes `{token_ids, padding_mask}`, each `(n, length)` int, and returns
    `(n, dim)` float32, not scaled to unit length.

    Args:
        backbone: A keras-hub backbone of the BERT family.
        tokenizer: The backbone's keras-hub tokenizer.
        pooling: How token vectors become one vector: `cls`, `cls_before_pooler`, `avg`, `avg_top2`, `avg_first_last`.
        head: SimCSE's MLP (dense layer, tanh) after pooling: `none`, `train_only` or `always`.
        max_length: Longest text in tokens, [CLS] and [SEP] included; the rest is cut off. None: what the backbone has
            positions for, at most 512.
        query_prompt: What `encode(texts, prompt_name="query")` puts before each text, such as `query: `.
        passage_prompt: Likewise for `passage`: the texts that queries should find.
        matryoshka: The sizes that the vectors were trained to be cut to, if any.
        dim: How many numbers of a vector to keep, the first ones, scaled to unit length again. None: all.
        name: The model's name.

    Raises:
        UserError: A value that cannot be, `max_length` is more than the backbone has positions for, or `dim` more than
            its vectors have numbers.
    """

    @classmethod
    def from_preset(
        cls,
        preset: str,
        *,
        pooling: Pooling | None = None,
        head: Head | None = None,
        max_length: int | None = None,
        query_prompt: str | None = None,
        passage_prompt: str | None = None,
        dim: int | None = None,
        dropout: float = 0.1,
        dtype: str = "float32",
        head_init: HeadInit = "random",
        layers: tuple[int, ...] = (),
    ) -> SentenceEncoder:
        """Loads an encoder by name or from a directory.

        Args:
            preset: `minilm`, a keras-hub preset name, or a directory: keras-hub's, Hugging Face's, a run's.
            pooling: As for the class; by default what the preset says of itself, else `cls`.
            head: As for the class; by default what the preset says of itself, else `none`.
            max_length: As for the class; by default what the preset says of itself.
            query_prompt: As for the class; by default what the preset says of itself.
            passage_prompt: Likewise.
            dim: As for the class; by default what the preset says of itself.
            dropout: Rate of the backbone's dropout, in training.
            dtype: A Keras dtype policy for the backbone, such as `mixed_bfloat16`. Pooling and head are always float32.
            head_init: Where a head starts that the preset has not saved: `random`, or `pooler` for the checkpoint's
                pooler, where princeton-nlp's SimCSE checkpoints keep their head.
            layers: Which of the preset's transformer layers to keep: `(3,)` for three of them, evenly spaced with the
                first and the last among them; or several places, counted from 0. By default all.

        Raises:
            UserError: There is no such preset, it cannot be loaded, it has no such layers, or a prompt leaves no room
                for a text.
        """
        origin = presets.locate(preset)
        config = origin.encoder_config(
            pooling=pooling,
            head=head,
            max_length=max_length,
            query_prompt=query_prompt,
            passage_prompt=passage_prompt,
            dim=dim,
        )
        return load_encoder(origin, config, dropout=dropout, dtype=dtype, head_init=head_init, layers=layers)

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Writes the encoder as a directory that `from_preset`, every command and keras-hub read.

        Args:
            preset_dir: Must not exist.

        Raises:
            UserError: It exists.
        """
        save_encoder(self, Path(preset_dir))

    def export(
        self,
        filepath: str | Path,
        format: Literal["tf_saved_model", "litert"] = "tf_saved_model",
        *,
        source: str = "",
        quantize: Quantize = "none",
    ) -> Path:
        """Writes a model that takes strings: as TF Serving wants it, or for processes without TensorFlow.

        Args:
            filepath: For a SavedModel the model's directory, such as `saved_models/mine`, into which the next version
                is written; for LiteRT a new directory.
            format: `tf_saved_model` or `litert`; for the other formats there is `simcse_tf.export`, the command.
            source: Where the encoder comes from, for the model card: a run directory, or a preset's name.
            quantize: How LiteRT stores the weights: `none` (float32), `float16` or `int8`.

        Returns:
            The directory that was written.

        Raises:
            UserError: Another format; the directory cannot be written; the exported model differs from this one.
        """
        check_choice("format", format, ("tf_saved_model", "litert"))
        if format == "litert":
            return litert.export(self, Path(filepath), source=source, quantize=quantize)
        if quantize != "none":
            raise UserError(f"`quantize` {quantize}: only `format` litert has it. Omit it.")
        return savedmodel.export(self, Path(filepath), source=source)


def save_encoder(encoder: Encoder, directory: Path) -> None:
    """Writes an encoder, all of it or nothing. keras-hub reads the directory as a preset.

    Args:
        encoder: The encoder.
        directory: Must not exist.

    Raises:
        UserError: It exists.
    """
    check_new(directory)
    with whole_directory(directory) as new:
        keras_hub.save(encoder, new)


def load_encoder(
    origin: Origin,
    config: EncoderConfig | None = None,
    *,
    dropout: float = 0.1,
    dtype: str = "float32",
    head_init: HeadInit = "random",
    layers: tuple[int, ...] = (),
) -> SentenceEncoder:
    """Builds an encoder from what `presets.locate` found.

    Args:
        origin: From `presets.locate`.
        config: What is saved beside the weights; by default what the origin says of itself, else [CLS] without a head.
        dropout: Rate for the backbone's dropout layers.
        dtype: A Keras dtype policy name for the backbone; pooling, head and loss are always float32.
        head_init: Where a head starts that the origin has not saved: `random`, or `pooler` for the checkpoint's pooler.
        layers: Which of its transformer layers to keep, as `TrainConfig.layers`; by default all.

    Raises:
        UserError: The weights cannot be read or do not fit; there is no pooler to start the head from; a prompt leaves
            no room for a text.
    """
    if origin.kind == "huggingface":
        assert origin.directory is not None
        backbone, tokenizer = huggingface.load(origin.directory, dropout=dropout, dtype=dtype)
    else:
        preset = origin.name if origin.directory is None else str(origin.directory.resolve())
        backbone, tokenizer = keras_hub.load(preset, dropout=dropout, dtype=dtype)
    if layers:
        backbone = with_layers(backbone, choose_layers(layers, backbone.num_layers, origin.name))
    config = config or origin.encoder_config()
    encoder = SentenceEncoder(backbone, tokenizer, **config.to_dict())
    check_prompts(config.prompts, tokenizer, max_length=encoder.max_length)
    if encoder.head is not None:
        weights = saved_head(origin)
        if weights is None and head_init == "pooler":
            weights = _pooler(origin, backbone)
        if weights is not None:
            encoder.head.set_weights(weights)
    return encoder


def saved_head(origin: Origin) -> list[np.ndarray] | None:
    """The head of an encoder that a run saved, or of a sentence-transformers directory."""
    if origin.directory is None:
        return None
    return (sentence_transformers if origin.kind == "huggingface" else encoder_json).head(origin.directory)


def _pooler(origin: Origin, backbone) -> list[np.ndarray]:
    if origin.kind == "huggingface":
        assert origin.directory is not None
        return huggingface.pooler(origin.directory)
    if not hasattr(backbone, "pooled_dense"):
        raise UserError(f"`head_init` pooler: the preset {origin.name} has no pooler. Use `head_init` random.")
    return backbone.pooled_dense.get_weights()
