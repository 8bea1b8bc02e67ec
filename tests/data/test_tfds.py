"""TensorFlow Datasets, stored by TFDS's own writer."""

import time
from pathlib import Path

import pytest

from simcse_tf.data import tfds as ours
from simcse_tf.data.sources import Scan, open_source, scan
from simcse_tf.errors import UserError


def complaint(spec, **options):
    with pytest.raises(UserError) as caught:
        scan(open_source(spec, **options))
    return str(caught.value)


SNLI = [
    ("A dog runs.", "An animal moves.", 0),
    ("A dog runs.", "A pet runs.", 0),
    ("A dog runs.", "It is brown.", 1),
    ("A dog runs.", "A dog sleeps.", 2),
    ("Nobody agreed.", "Who knows.", -1),
    ("A cat eats.", "A cat starves.", 2),
]
MULTI_NLI = [("Über uns.", "  Above us. ", 0), ("A cat eats.", "It is fed.", 0), ("Über uns.", "Below.", 2)]


@pytest.fixture(scope="session")
def stored(tmp_path_factory) -> Path:
    """A TFDS data directory with snli, multi_nli, glue/sst2 and a dataset that TFDS does not know, `mine/small`."""
    import numpy as np
    import tensorflow_datasets as tfds

    directory = tmp_path_factory.mktemp("tfds")
    text = tfds.features.Text()

    def store(name, version, features, examples, config=None, split="train"):
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=version,
            config=config,
            data_dir=directory,
            features=tfds.features.FeaturesDict(features),
            split_datasets={split: list(enumerate(examples))},
            disable_shuffling=True,
        )

    pair = {"premise": text, "hypothesis": text, "label": tfds.features.ClassLabel(num_classes=3)}
    for name, rows in (("snli", SNLI), ("multi_nli", MULTI_NLI)):
        store(name, "1.1.0", pair, [dict(zip(pair, row, strict=True)) for row in rows])
    sentences = [{"sentence": f"Sentence {i}.", "label": 0, "idx": i} for i in range(2500)]
    sst2 = {"sentence": text, "label": tfds.features.ClassLabel(num_classes=2), "idx": np.int32}
    store("glue", "2.0.0", sst2, sentences, config="sst2")
    rows = [("One.", b"Two."), ("", b"No anchor."), ("Latin-1.", b"caf\xe9"), ("Three.", b"Four.")]
    mine = {"question": text, "answer": text, "votes": tfds.features.Sequence(np.int64)}
    store(
        "mine",
        "1.0.0",
        mine,
        [{"question": a, "answer": b, "votes": []} for a, b in rows],
        config="small",
        split="all_of_it",
    )
    return directory


def test_snli_and_multi_nli_become_triplets_by_premise(stored):
    source = open_source("tfds:snli+multi_nli", tfds_dir=stored)
    assert list(source.rows()) == [
        ("A dog runs.", "An animal moves.", "A dog sleeps."),
        ("A cat eats.", "It is fed.", "A cat starves."),
        ("Über uns.", "Above us.", "Below."),
    ]
    assert scan(source) == Scan(rows=3, bad=0, complete=True, first_bad=None)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("tfds:glue/sst2:train:sentence", 2500),
        ("tfds:glue/sst2:2.0.0:train:sentence", 2500),
        ("tfds:glue/sst2:train[:10%]:sentence", 250),
        ("tfds:glue/sst2:train[:5]+train[7:9]:sentence", 7),
    ],
)
def test_a_dataset_is_read_in_its_own_order(stored, spec, count):
    rows = list(open_source(spec, tfds_dir=stored).rows())
    assert len(rows) == count
    assert rows[:5] == [(f"Sentence {i}.",) for i in range(5)]
    if count == 2500:
        assert rows[-1] == ("Sentence 2499.",)


def test_several_fields_are_the_views_and_bad_examples_are_counted(stored):
    source = open_source("tfds:mine/small:all_of_it:answer,question", tfds_dir=stored)
    bad = []
    assert list(source.rows(bad.append)) == [("Two.", "One."), ("Four.", "Three.")]
    assert bad == [
        "tfds:mine/small:all_of_it:answer,question, example 2: 'question' is empty; the row starts \"No anchor.\"",
        "tfds:mine/small:all_of_it:answer,question, example 3: byte 0xe9 at position 4 is not UTF-8; the row starts "
        '"caf\\xe9 Latin-1."',
    ]
    with pytest.raises(UserError, match=r"example 2: 'question' is empty.* `skip_bad_rows`"):
        scan(source)


def test_a_dataset_can_be_read_inside_a_tf_data_generator(stored):
    import tensorflow as tf

    source = open_source("tfds:snli+multi_nli", tfds_dir=stored)
    dataset = tf.data.Dataset.from_generator(source.rows, output_signature=tf.TensorSpec([3], tf.string))
    assert [row[0].decode() for row in dataset.as_numpy_iterator()] == ["A dog runs.", "A cat eats.", "Über uns."]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("tfds:snlii:train:premise", "tfds:snlii: unknown dataset 'snlii'. Did you mean 'snli'"),
        ("tfds:min/small:train:x", "tfds:min/small: unknown dataset 'min'. Did you mean 'mine'"),
        ("tfds:qqqqqqqq:train:x", "tfds:qqqqqqqq: unknown dataset 'qqqqqqqq'. See https://www.tensorflow.org/datasets"),
        ("tfds:glue/sst3:train:x", "tfds:glue/sst3: unknown configuration 'sst3'. Did you mean 'sst2'"),
        ("tfds:mine/smal:train:x", "tfds:mine/smal: unknown configuration 'smal'. Did you mean 'small'"),
        ("tfds:snli:9.9.9:train:premise", "tfds:snli:9.9.9: TFDS cannot load it: "),
        ("tfds:snli:trian:premise", "tfds:snli: split 'trian': Unknown split 'trian'. Should be one of ['train']."),
        ("tfds:snli:train[:x]:premise", "tfds:snli: split 'train[:x]': "),
        ("tfds:snli:train:premises", "tfds:snli: field 'premises' does not exist. Did you mean 'premise'?"),
        ("tfds:snli:train:label", "tfds:snli: field 'label' is not text. "),
        ("tfds:mine/small:all_of_it:votes", "tfds:mine/small: field 'votes' is not text. Valid: answer, question."),
    ],
)
def test_a_wrong_tfds_name_gets_the_nearest_ones(stored, spec, expected):
    assert complaint(spec, tfds_dir=stored).startswith(expected)


def test_a_dataset_that_is_not_there_says_within_seconds_that_there_is_no_network(stored, tmp_path, no_network):
    began = time.monotonic()
    for spec in ("tfds:snli+multi_nli", "tfds:glue/mrpc:train:sentence1,sentence2"):
        message = complaint(spec, tfds_dir=tmp_path)
        assert f"is not in {tmp_path}" in message
        assert "Without a network, set `data` to bundled" in message
        assert "`tfds_dir`" in message
    assert time.monotonic() - began < 10


def test_a_dataset_is_prepared_on_first_use(web, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class MadeForThisTest(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield 0, {"text": "Made here."}

    monkeypatch.setattr(ours, "_BUCKET", web.url + "/no-such-page")
    assert list(open_source("tfds:made_for_this_test:train:text", tfds_dir=tmp_path).rows()) == [("Made here.",)]
    assert web.requests == ["/no-such-page"]


def test_a_dataset_whose_script_fails_says_why(web, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    class FailsInThisTest(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))

        def _split_generators(self, dl_manager):
            raise AssertionError("put the archive there by hand")

        def _generate_examples(self):
            yield 0, {"text": "Never."}

    monkeypatch.setattr(ours, "_BUCKET", web.url + "/any")
    assert "put the archive there by hand" in complaint("tfds:fails_in_this_test:train:text", tfds_dir=tmp_path)
