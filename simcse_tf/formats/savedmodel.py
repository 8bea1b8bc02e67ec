"""The SavedModel: strings in, unit vectors out, laid out and checked for TF Serving."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.data.strings import PROMPT_NAMES, PromptName
from simcse_tf.data.tokenization import is_byte_level, tokenize, with_prompt
from simcse_tf.errors import UserError
from simcse_tf.files import whole_directory, write_json
from simcse_tf.formats import card, served_ops, server_files
from simcse_tf.formats.check_texts import check_texts, plain_texts
from simcse_tf.models.encoder import Encoder
from simcse_tf.models.packed import Snapshot
from simcse_tf.serving import compact
from simcse_tf.serving.compact import Dtype
from simcse_tf.serving.exported import ENCODER_FILE, EXTRA, next_version

# Largest difference, number by number, between the exported and the live model.
_TOLERANCE = 1e-5


def export(encoder: Encoder, to: Path, *, source: str = "", target: served_ops.Target = served_ops.OLDEST) -> Path:
    """Writes an encoder as a SavedModel at `to/<next version>/`.

    Signatures: `serving_default`: `text` string `[None]` -> `embedding` float32 `[None, dim]`, unit length;
    `similarity`: `text_a`, `text_b` string `[None]` -> `score` float32 `[None]`, the cosine; `tokens`: `text` string
    `[None]` -> `token_ids`, `padding_mask` int32 `[None, None]`, what the encoder saw. An encoder with prompts has two
    more, `query` and `passage`: as `serving_default`, with the prompt of that name put before each text. Each of those
    that give an embedding is there in fewer bits too: `int8` -> `embedding_int8_bytes` and `binary` ->
    `embedding_binary_bytes`, string `[None]`, `query_int8` and so on.

    The version appears only after its operations were checked against the server's, and after a fresh process loaded it
    as TF Serving does (the v1 Session loader) and got the live encoder's embeddings for 21 sentences. Beside
    it: warm-up requests, a model card, and files for the server's configuration.

    Args:
        encoder: The encoder.
        to: The model's directory, e.g. `saved_models/quickstart`.
        source: Where the encoder comes from, for the model card: a run directory, or a preset's name or directory.
        target: The oldest tensorflow/serving that has to load it.

    Returns:
        The version's directory.

    Raises:
        UserError: `to` cannot be written, the server lacks an operation, or the exported model differs from the live
            one.
    """
    version = next_version(to)
    try:
        with whole_directory(version) as directory:
            _write(encoder, directory)
            served_ops.check(directory, target)
            signatures = [compact.signature_of(*of) for of in _embedding_signatures(encoder)]
            server_files.write_warmup(directory, to.name, signatures, plain_texts())
            write_json(directory / EXTRA / ENCODER_FILE, encoder.about() | card.provenance(source))
            added = "The signatures `query` and `passage` do that; `serving_default` and `similarity` add nothing."
            card.write(encoder, directory, name=to.name, source=source, prompts_added_by=added)
            _check(encoder, directory, check_texts())
        server_files.write_configuration(to)
    except OSError as e:
        raise UserError(f"{version}: cannot be written ({e}). Choose another directory or free some space.") from e
    return version


def _write(encoder: Encoder, directory: Path) -> None:
    text = [tf.TensorSpec([None], tf.string, name="text")]
    snapshot = Snapshot()
    # One function for all signatures.
    encode = tf.function(lambda text: encoder.encode_tensor(text, snapshot), input_signature=text, autograph=False)

    def similarity(text_a, text_b):
        rows = tf.shape(text_a)[0]
        # One pass for both sides: half the operations to start up.
        vectors = encode(tf.concat([text_a, text_b], axis=0))
        return {"score": tf.reduce_sum(vectors[:rows] * vectors[rows:], axis=1)}

    def serve(prompt, dtype):
        output, quantize = compact.output_of(dtype), _QUANTIZE[dtype]
        return lambda text: {output: quantize(encode(with_prompt(prompt, text) if prompt else text))}

    def tokens(text):
        return tokenize(encoder.tokenizer, text, max_length=encoder.max_length)

    # ExportArchive, because what tf.saved_model.save writes for Keras layers does not load in the v1 Session loader.
    archive = keras.export.ExportArchive()
    archive.track(snapshot)
    if not is_byte_level(encoder.tokenizer):
        # A byte-level one is left out: keras-hub's has tables that nothing here reads, and one that grows. The archive
        # finds variables by itself, and refuses a layer without any that is not marked as built.
        encoder.tokenizer.built = True
        archive.track(encoder.tokenizer)
    for name, dtype in _embedding_signatures(encoder):
        prompt = encoder.config.prompts[name] if name else ""
        archive.add_endpoint(compact.signature_of(name, dtype), serve(prompt, dtype), input_signature=text)
    pair = [tf.TensorSpec([None], tf.string, name=name) for name in ("text_a", "text_b")]
    archive.add_endpoint("similarity", similarity, input_signature=pair)
    archive.add_endpoint("tokens", tokens, input_signature=text)
    archive.write_out(str(directory), verbose=False)


def _embedding_signatures(encoder: Encoder) -> list[tuple[PromptName | None, Dtype]]:
    """What each signature puts before texts, and how it gives their embeddings."""
    names: list[PromptName | None] = [None, *(name for name in PROMPT_NAMES if name in encoder.config.prompts)]
    return [(name, dtype) for name in names for dtype in compact.DTYPES]


def _int8(vectors: tf.Tensor) -> tf.Tensor:
    scaled = tf.clip_by_value(tf.round(vectors * compact.SCALE), -compact.SCALE, compact.SCALE - 1)
    return _as_bytes(tf.bitwise.bitwise_and(tf.cast(scaled, tf.int32), 255))


def _binary(vectors: tf.Tensor) -> tf.Tensor:
    bits = tf.pad(tf.cast(vectors > 0, tf.int32), [[0, 0], [0, -vectors.shape[-1] % 8]])
    octets = tf.reshape(bits, [-1, bits.shape[-1] // 8, 8])
    return _as_bytes(tf.reduce_sum(octets * [128, 64, 32, 16, 8, 4, 2, 1], axis=-1))


def _as_bytes(numbers: tf.Tensor) -> tf.Tensor:
    """`(n, bytes)` int32, 0 to 255, as `(n,)` strings.

    TF Serving writes integers into its answers as variable-length ones, a negative one in 10 bytes; strings as they
    are, and in JSON as base64 if the output's name ends with `_bytes`.
    """
    return tf.strings.reduce_join(tf.gather([bytes([i]) for i in range(256)], numbers), axis=-1)


_QUANTIZE: dict[Dtype, Callable[[tf.Tensor], tf.Tensor]] = {
    "float32": lambda vectors: vectors,
    "int8": _int8,
    "binary": _binary,
}


def _check(encoder: Encoder, directory: Path, texts: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("session_check.py")), str(directory)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UserError(
            f"the exported model does not load in a fresh process as TF Serving would load it:\n{done.stderr[-2000:]}"
        )
    answers = json.loads(done.stdout)
    difference = np.abs(np.array(answers["score"]) - 1).max()
    live = {name: encoder.encode(texts, prompt_name=name) for name in (None, *encoder.prompt_names)}
    for name, dtype in _embedding_signatures(encoder):
        answer = np.array(answers["embeddings"][compact.signature_of(name, dtype)])
        difference = max(difference, _difference(live[name], answer, dtype))
    if not difference <= _TOLERANCE or answers["none"] != []:
        raise UserError(
            f"the exported model differs from the live one by {difference:.2e} (allowed: {_TOLERANCE:.0e}); it was not "
            "exported."
        )


def _difference(live: np.ndarray, answer: np.ndarray, dtype: Dtype) -> float:
    """How far the numbers are apart that two embeddings were made from, at least; one of them may be quantized."""
    if dtype == "float32":
        return float(np.abs(answer - live).max())
    if dtype == "int8":
        exact = np.clip(live * compact.SCALE, -compact.SCALE, compact.SCALE - 1)
        return float(np.maximum(np.abs(answer.astype("uint8").view("int8") - exact) - 0.5, 0).max() / compact.SCALE)
    signs = np.unpackbits(answer.astype("uint8"), axis=-1, count=live.shape[-1]).astype(bool)
    return float(np.abs(live).max(initial=0, where=signs != (live > 0)))
