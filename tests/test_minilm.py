"""The real encoder on real data: known answers, and that training moves them the right way."""

import json

import numpy as np
import pytest

from simcse_tf import train
from simcse_tf.config import EncoderConfig
from simcse_tf.evaluation import sts
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.serving.client import Client

pytestmark = pytest.mark.slow


def test_the_unsupervised_recipe_improves_cls(minilm, shared_data, tmp_path, capsys):
    """10 steps of the paper's recipe on Wikipedia raise [CLS] from 79.73 by half a point or more."""
    flags = [
        "unsup-bert-base",
        "--preset",
        minilm,
        "--data",
        str(shared_data / "wiki_sentences.txt"),
        "--max-steps",
        "10",
        "--no-report",
    ]
    flags += ["--sts-dir", str(shared_data / "sts"), "--output-dir", str(tmp_path / "run")]
    train.main([*flags, "--export-to", str(tmp_path / "exported")])
    result = json.loads(capsys.readouterr().out)
    assert result["spearman_before"] == pytest.approx(79.73, abs=0.05)
    assert result["spearman_after"] > 80.23
    # What is exported is what was scored: without the head.
    pairs = sts.load("STSB-dev", shared_data / "sts")
    exported = sts.evaluate(Client(result["saved_model"]).encode, pairs).all.spearman
    assert exported == pytest.approx(result["spearman_after"], abs=0.01)


def test_accents_and_case_are_tokenised_as_the_model_was_trained(minilm):
    encoder = load_encoder(presets.locate(minilm), EncoderConfig("avg", "none"))
    a, b = encoder.encode(["Caf\u00e9 na\u00efve R\u00c9SUM\u00c9", "cafe naive resume"])
    np.testing.assert_allclose(a, b, atol=1e-5)
