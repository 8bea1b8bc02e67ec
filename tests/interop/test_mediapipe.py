"""MediaPipe's own Text Embedder, on what is exported for it."""

import unicodedata

import numpy as np
import pytest
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.text import TextEmbedder, TextEmbedderOptions

from simcse_tf.formats import mediapipe, presets
from simcse_tf.formats.encoders import load_encoder
from tests.conftest import SENTENCES
from tests.formats.tiny_encoders import distance

pytestmark = pytest.mark.interop

TEN = [
    "A man is playing a guitar.",
    "Someone plays an instrument.",
    "The dog sleeps on the sofa.",
    "A cat is lying on the couch.",
    "The stock market fell sharply today.",
    "Shares dropped by five percent.",
    "How do I reset my password?",
    "I can't log in to my account.",
    "It's raining cats and dogs!",
    "The weather is awful: heavy rain, 15 degrees.",
]


def embedder(directory, *, quantize=False):
    base = BaseOptions(model_asset_path=str(directory / "model.tflite"))
    return TextEmbedder.create_from_options(TextEmbedderOptions(base_options=base, quantize=quantize))


def vectors(embedder, texts):
    return np.array([embedder.embed(text).embeddings[0].embedding for text in texts])


def prepared(text):
    """As docs/serving.md says."""
    letters = (c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn")
    return unicodedata.normalize("NFC", "".join(letters)).lower().replace("\u00df", "ss")


@pytest.fixture(scope="module")
def tiny(tiny_origin):
    return load_encoder(tiny_origin)


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory):
    return mediapipe.export(tiny, tmp_path_factory.mktemp("exported") / "tiny")


def test_embeddings_are_ours(exported, tiny):
    texts = [*SENTENCES[:5], "", "  The\tDog, sleeps!\n", "unknown w0rds (of a dog)"]
    with embedder(exported) as theirs:
        np.testing.assert_allclose(vectors(theirs, texts), tiny.encode(texts), atol=1e-5)


def test_long_texts_are_cut_off_where_ours_are(exported, tiny):
    # The special tokens take two places.
    texts = [" ".join(["dog"] * (n - 1) + ["cat"]) for n in range(tiny.max_length - 3, tiny.max_length + 2)]
    texts.append("dog " * 10_000)
    with embedder(exported) as theirs:
        np.testing.assert_allclose(vectors(theirs, texts), tiny.encode(texts), atol=1e-5)


def test_quantized_embeddings_are_128_times_ours(exported, tiny):
    with embedder(exported, quantize=True) as theirs:
        found = vectors(theirs, SENTENCES[:5]).view("int8")
    np.testing.assert_allclose(found, np.clip(tiny.encode(SENTENCES[:5]) * 128, -128, 127), atol=0.51)


def test_the_model_card_says_how_to_use_it(exported):
    card = (exported / "README.md").read_text("utf-8")
    for platform in ("Android", "iOS", "Web", "Python"):
        assert f"| {platform}" in card
    assert sorted(file.name for file in exported.iterdir()) == ["README.md", "model.tflite"]


def test_minilm_in_8_bits_ranks_as_ours_and_accents_can_be_taken_off_before(minilm, tmp_path):
    live = load_encoder(presets.locate(minilm))
    with embedder(mediapipe.export(live, tmp_path / "minilm", quantize="int8")) as theirs:
        embeddings = [theirs.embed(text).embeddings[0] for text in TEN]
        ours = live.encode(TEN)
        assert distance(np.array([e.embedding for e in embeddings]), ours) < 0.005
        cosines = [[TextEmbedder.cosine_similarity(a, b) for a in embeddings] for b in embeddings]
        np.testing.assert_allclose(cosines, ours @ ours.T, atol=0.02)

        accented = [
            "The caf\u00e9 is na\u00efve.",
            "\u00c9cole de cuisine",
            "\u0141\u00f3d\u017a, Z\u00fcrich",
            "150\u00a0km",
        ]
        plain = [prepared(text) for text in accented]
        ours = live.encode(accented)
        assert np.min(np.sum(vectors(theirs, accented) * ours, axis=1)) < 0.5
        assert distance(vectors(theirs, plain), ours) < 0.02
