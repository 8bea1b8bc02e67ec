"""The SavedModel: strings in, unit vectors out, laid out and checked as TF Serving wants it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.data import sources
from simcse_tf.errors import UserError
from simcse_tf.files import whole_directory
from simcse_tf.models.encoder import SentenceEncoder
from simcse_tf.serving.versions import next_version

# Largest difference, number by number, between the exported and the live model.
_TOLERANCE = 1e-5
_ODD = ["", " ", "\U0001f600 caf\u00e9 na\u00efve \u65e5\u672c\u8a9e", "word " * 2000]


def export(encoder: SentenceEncoder, to: Path) -> Path:
    """Writes an encoder as a SavedModel at `to/<next version>/`.

    Signatures: `serving_default`: `text` string `[None]` -> `embedding` float32 `[None, dim]`, unit length;
    `similarity`: `text_a`, `text_b` string `[None]` -> `score` float32 `[None]`, the cosine.

    The version appears only after it was loaded in a fresh process through the v1 Session loader (TF Serving's way) and
    gave the same embeddings as the live encoder on 20 sentences.

    Args:
        encoder: The encoder.
        to: The model's directory, e.g. `saved_models/quickstart`.

    Returns:
        The version's directory.

    Raises:
        UserError: `to` cannot be written, or the exported model differs from the live one.
    """
    version = next_version(to)
    try:
        with whole_directory(version) as directory:
            _write(encoder, directory)
            _check(encoder, directory)
    except OSError as e:
        raise UserError(f"{version}: cannot be written ({e}). Choose another directory or free some space.") from e
    return version


def _write(encoder: SentenceEncoder, directory: Path) -> None:
    def serve(text):
        return {"embedding": encoder.embed(text)}

    def similarity(text_a, text_b):
        rows = tf.shape(text_a)[0]
        # One pass for both sides: half the operations to start up.
        vectors = encoder.embed(tf.concat([text_a, text_b], axis=0))
        return {"score": tf.reduce_sum(vectors[:rows] * vectors[rows:], axis=1)}

    # ExportArchive, because what tf.saved_model.save writes for Keras layers does not load in the v1 Session loader.
    archive = keras.export.ExportArchive()
    archive.track(encoder)
    text = [tf.TensorSpec([None], tf.string, name="text")]
    archive.add_endpoint("serving_default", serve, input_signature=text)
    pair = [tf.TensorSpec([None], tf.string, name=name) for name in ("text_a", "text_b")]
    archive.add_endpoint("similarity", similarity, input_signature=pair)
    archive.write_out(str(directory), verbose=False)


def _check(encoder: SentenceEncoder, directory: Path) -> None:
    plain = [row[0] for row, _ in zip(sources.open_source("bundled").rows(), range(16), strict=False)]
    texts = plain + _ODD
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
    difference = np.abs(np.array(json.loads(done.stdout)) - encoder.encode(texts)).max()
    if not difference <= _TOLERANCE:
        raise UserError(
            f"the exported model differs from the live one by {difference:.2e} (allowed: {_TOLERANCE:.0e})."
        )
