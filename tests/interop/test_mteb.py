"""The adapter under mteb itself, on tasks made here."""

import mteb
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import EncoderProtocol
from mteb.types import PromptType

from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts
from simcse_tf.evaluation.mteb import MtebEncoder
from simcse_tf.formats.encoders import load_encoder
from tests.conftest import PROMPTS

pytestmark = pytest.mark.interop


def metadata(name, kind, main_score):
    return TaskMetadata(
        name=name,
        description="Made in a test.",
        reference=None,
        dataset={"path": "nowhere/on-the-hub", "revision": "0"},
        type=kind,
        category="t2t" if kind == "STS" else "t2c",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
        date=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation="",
    )


class BundledPairs(AbsTaskSTS):
    """This package's graded pairs."""

    metadata = metadata("BundledPairs", "STS", "cosine_spearman")

    def load_data(self, **_):
        pairs = sts.bundled()
        rows = {"sentence1": pairs.a, "sentence2": pairs.b, "score": pairs.gold.tolist()}
        self.dataset = DatasetDict({"test": Dataset.from_dict(rows)})
        self.data_loaded = True


class Places(AbsTaskClassification):
    """River or house."""

    metadata = metadata("Places", "Classification", "accuracy")

    def load_data(self, **_):
        texts = [
            f"{a} {noun} {verb} {place}"
            for a in ("a", "the", "an old")
            for noun in ("man", "dog", "cat", "bird")
            for verb in ("eats", "sleeps")
            for place in ("near the river", "in the house")
        ]
        rows = {"text": texts, "label": [int(text.endswith("house")) for text in texts]}
        self.dataset = DatasetDict({split: Dataset.from_dict(rows) for split in ("train", "test")})
        self.data_loaded = True


@pytest.fixture(scope="module")
def encoder(tiny_origin):
    return load_encoder(tiny_origin)


def run(encoder, task):
    result = mteb.evaluate(MtebEncoder(encoder, "simcse-tf/tiny"), task, cache=None, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def test_mteb_and_our_own_evaluation_agree_on_sts(encoder):
    expected = sts.evaluate(encoder.encode, sts.bundled()).all
    scores = run(encoder, BundledPairs())
    # mteb breaks the ties of equal sentences by rounding.
    assert 100 * scores["cosine_spearman"] == pytest.approx(expected.spearman, abs=0.05)
    assert 100 * scores["cosine_pearson"] == pytest.approx(expected.pearson, abs=0.05)
    assert scores["spearman"] == pytest.approx(scores["cosine_spearman"], abs=1e-3)


def test_another_kind_of_task_runs_too(encoder):
    assert run(encoder, Places())["accuracy"] > 0.6  # chance is 0.5


def test_it_has_what_mteb_asks_for(encoder):
    adapter = MtebEncoder(encoder, "simcse-tf/tiny", revision="7")
    assert isinstance(adapter, EncoderProtocol)
    assert (adapter.mteb_model_meta.name, adapter.mteb_model_meta.revision) == ("simcse-tf/tiny", "7")
    vectors = encoder.encode(["a dog", "the cat"])
    np.testing.assert_allclose(np.asarray(adapter.similarity(vectors, vectors)), vectors @ vectors.T, atol=1e-6)


def test_queries_and_documents_have_the_models_prompts_if_it_has_any(tiny_origin, encoder):
    prompted = load_encoder(tiny_origin, EncoderConfig("avg", "none", **PROMPTS))
    context = {"task_metadata": BundledPairs.metadata, "hf_split": "test", "hf_subset": "default"}
    for kind, name in ((PromptType.query, "query"), (PromptType.document, "passage"), (None, None)):
        found = MtebEncoder(prompted, "simcse-tf/tiny").encode([{"text": ["a dog"]}], prompt_type=kind, **context)
        np.testing.assert_array_equal(found, prompted.encode(["a dog"], prompt_name=name))
        found = MtebEncoder(encoder, "simcse-tf/tiny").encode([{"text": ["a dog"]}], prompt_type=kind, **context)
        np.testing.assert_array_equal(found, encoder.encode(["a dog"]))


def test_a_name_without_organisation_is_refused(encoder):
    with pytest.raises(UserError, match="'tiny' is not ORGANISATION/NAME"):
        MtebEncoder(encoder, "tiny")


def test_a_task_without_text_is_refused_by_name(encoder):
    adapter = MtebEncoder(encoder, "simcse-tf/tiny")
    with pytest.raises(UserError, match="BundledPairs: has image, but no text"):
        adapter.encode([{"image": [0]}], task_metadata=BundledPairs.metadata, hf_split="test", hf_subset="default")


def test_nan_is_refused_with_task_and_sentence(encoder):
    class Broken:
        def encode(self, texts, *, batch_size):
            return np.full((len(texts), 3), np.nan)

    with pytest.raises(UserError, match="BundledPairs: the encoder gave NaN or infinity"):
        run(Broken(), BundledPairs())
