"""Tiny encoders of every architecture, and how far two sets of vectors are apart."""

from __future__ import annotations

import numpy as np

from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from tests.conftest import SENTENCES
from tests.formats import hugging_face_directories

TEXTS = [*SENTENCES, "", "Caf\u00e9 na\u00efve, don't!", "the unknown words of a dog", "dog " * 100]
# Those that can be exported to Hugging Face.
FAMILIES = ["bert", "distilbert", "electra", "roberta", "xlm-roberta"]


def encoder_of(tmp_path, model_type, config):
    encoder = load_encoder(presets.locate(str(hugging_face_directories.write(tmp_path / "source", model_type))), config)
    if encoder.head is not None:
        rng = np.random.default_rng(0)
        encoder.head.set_weights([rng.normal(size=w.shape).astype("float32") for w in encoder.head.get_weights()])
    return encoder


def distance(a, b):
    """The largest cosine distance of two sets of vectors, row by row."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (np.float64(a), np.float64(b)))
    return float(np.max(1 - np.sum(a * b, axis=1)))
