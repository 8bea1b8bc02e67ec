import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from simcse_tf.config import EncoderConfig
from simcse_tf.formats import huggingface, presets
from simcse_tf.formats.encoders import load_encoder
from tests.formats.tiny_encoders import FAMILIES, TEXTS, distance, encoder_of

pytestmark = pytest.mark.interop

CONFIGS = [
    EncoderConfig("avg", "none"),
    EncoderConfig("cls", "always"),
    EncoderConfig("avg", "none", dim=4),
    EncoderConfig("cls", "always", dim=4),
]


# The head is a module of its own, whatever stands before it.
@pytest.mark.parametrize(
    ("model_type", "config"), [*((family, CONFIGS[0]) for family in FAMILIES), *(("bert", c) for c in CONFIGS[1:])]
)
def test_sentence_transformers_gives_the_same_embeddings(tmp_path, model_type, config):
    encoder = encoder_of(tmp_path, model_type, config)
    model = SentenceTransformer(str(huggingface.export(encoder, tmp_path / "out")), device="cpu")
    # The tiny RoBERTa's vocabulary, unlike a real one, has not all bytes.
    texts = [t for t in TEXTS if set(t) <= set("abcdefghijklmnopqrstuvwxyz.,?! ")]
    theirs = model.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
    assert distance(theirs, encoder.encode(texts)) < 1e-6


def test_prompts_are_its_query_and_document_prompts(tmp_path):
    encoder = encoder_of(tmp_path, "bert", EncoderConfig("avg", "none", query_prompt="a dog ", passage_prompt="the "))
    model = SentenceTransformer(str(huggingface.export(encoder, tmp_path / "out")), device="cpu")
    for name, theirs in (("query", model.encode_query(TEXTS)), ("passage", model.encode_document(TEXTS))):
        assert distance(theirs, encoder.encode(TEXTS, prompt_name=name)) < 1e-6
        np.testing.assert_array_equal(model.encode(TEXTS, prompt_name=name), theirs)
    assert distance(model.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6


@pytest.mark.parametrize("config", CONFIGS)
def test_what_sentence_transformers_saves_is_read(tmp_path, config):
    encoder = encoder_of(tmp_path, "bert", config)
    model = SentenceTransformer(str(huggingface.export(encoder, tmp_path / "out")), device="cpu")
    model.save(str(tmp_path / "saved"))
    if not (tmp_path / "saved" / "vocab.txt").is_file():
        # transformers 5 keeps the vocabulary in tokenizer.json alone.
        (tmp_path / "saved" / "vocab.txt").write_bytes((tmp_path / "out" / "vocab.txt").read_bytes())
    origin = presets.locate(str(tmp_path / "saved"))
    assert origin.config is not None
    assert (origin.config.head, origin.config.dim) == (config.head, config.dim)
    np.testing.assert_allclose(load_encoder(origin).encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)


def test_minilm_gives_what_sentence_transformers_makes_of_the_same_files(minilm):
    origin = presets.locate(minilm)
    theirs = SentenceTransformer(str(origin.directory), device="cpu").encode(TEXTS)
    # keras-hub's BERT has the tanh GELU, the published model the exact one.
    assert distance(theirs, load_encoder(origin).encode(TEXTS)) < 1e-5
