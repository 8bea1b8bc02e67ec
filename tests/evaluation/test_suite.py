import json
import zlib

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.evaluation import geometry, sts, suite, transfer
from tests.evaluation.layout import write_task


def encode(texts):
    """Bags of words under fixed random vectors: sentences that share words are alike."""
    words = {w: np.random.default_rng(zlib.crc32(w.encode())).normal(size=8) for t in texts for w in [*t.split(), ""]}
    return np.stack([sum((words[w] for w in t.split()), words[""]) for t in texts])


@pytest.fixture(scope="module")
def sts_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("sts")
    for task in sts.TASKS:
        write_task(root, task)
    return root


@pytest.fixture
def transfer_dir(tmp_path):
    for name, word in (("pos", "good"), ("neg", "bad")):
        path = tmp_path / "downstream" / "MR" / f"rt-polarity.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{word} film {i}\n" for i in range(30)), "latin-1")
    return tmp_path / "downstream"


def test_without_anything_the_bundled_pairs_are_judged():
    judgement = suite.judge(encode, suite.load())
    assert judgement.scores == {"bundled": sts.evaluate(encode, sts.bundled()).all.spearman}
    assert judgement.average is None
    assert judgement.missing == ()


def test_the_figures_are_those_of_the_single_functions(sts_dir):
    report = suite.judge(encode, suite.load(sts_dir)).to_dict()
    assert list(report["scores"]) == list(sts.TASKS)
    for task in ("STS13", "STSB-dev"):
        result = sts.evaluate(encode, sts.load(task, sts_dir))
        assert report["scores"][task] == result.all.spearman
        assert report["details"][task] == result.to_dict()
    dev = sts.load("STSB-dev", sts_dir)
    assert report["geometry"] == {"task": "STSB-dev", **geometry.geometry(encode, dev)._asdict()}
    seven = ("STS12", "STS13", "STS14", "STS15", "STS16", "STSB-test", "SICK-R")
    assert report["average"] == pytest.approx(np.mean([report["scores"][task] for task in seven]))
    assert report["missing"] == []
    assert json.loads(json.dumps(report)) == report


def test_missing_sets_are_listed_and_not_averaged_away(tmp_path):
    for task in ("STS12", "SICK-R"):
        write_task(tmp_path, task)
    report = suite.judge(encode, suite.load(tmp_path)).to_dict()
    assert list(report["scores"]) == ["STS12", "SICK-R"]
    assert report["missing"] == ["STS13", "STS14", "STS15", "STS16", "STSB-dev", "STSB-test"]
    assert report["average"] is None
    assert report["geometry"] is None


def test_transfer_tasks_are_judged_beside_sts(sts_dir, transfer_dir, monkeypatch):
    # Ten folds in ten folds take seconds.
    result = transfer.evaluate(encode, "MR", transfer_dir, folds=3)
    monkeypatch.setattr(transfer, "evaluate", lambda function, task, where: {("MR", transfer_dir): result}[task, where])
    judgement = suite.judge(encode, suite.load(sts_dir, transfer_dir, ["STSB-test", "MR", "bundled"]))
    assert list(judgement.scores) == ["STSB-test", "bundled"]
    assert judgement.transfer == {"MR": result}
    assert judgement.to_dict()["transfer"]["MR"]["examples"] == {"all": 60}
    alone = suite.load(transfer_dir=transfer_dir)
    assert alone.pairs == ()
    assert alone.missing == ("CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC")


class TestEvaluateEncoder:
    def test_a_model_and_its_encode_function_are_judged_alike(self):
        class Model:
            def encode(self, texts):
                return encode(texts)

        expected = suite.judge(encode, suite.load()).to_dict()
        assert suite.evaluate_encoder(Model()).to_dict() == expected
        assert suite.evaluate_encoder(encode).to_dict() == expected

    def test_the_sets_are_those_of_load(self, sts_dir, transfer_dir, monkeypatch):
        result = transfer.evaluate(encode, "MR", transfer_dir, folds=3)
        monkeypatch.setattr(transfer, "evaluate", lambda *_: result)
        judgement = suite.evaluate_encoder(encode, sts_dir=sts_dir, transfer_dir=transfer_dir, tasks=["STSB-dev", "MR"])
        assert list(judgement.scores) == ["STSB-dev"]
        assert list(judgement.transfer) == ["MR"]

    def test_what_cannot_encode_is_refused_before_the_sets_are_read(self, tmp_path):
        with pytest.raises(UserError, match="type str cannot encode.*simcse_tf.load"):
            suite.evaluate_encoder("minilm", sts_dir=tmp_path / "nowhere")

    def test_a_judgement_prints_its_figures(self, tmp_path):
        for task in ("STS12", "STSB-dev"):
            write_task(tmp_path, task)
        judgement = suite.evaluate_encoder(encode, sts_dir=tmp_path)
        printed = str(judgement)
        for line in (f"STS12 {judgement.scores['STS12']:.2f}", f"alignment {judgement.geometry.alignment:.4f}"):
            assert line in " ".join(printed.split())
        assert "SICK-R" in printed.splitlines()[-1]
        assert len(printed) < 1000


def test_each_task_is_announced(sts_dir):
    lines = []
    suite.judge(encode, suite.load(sts_dir, tasks=["STSB-dev", "bundled"]), say=lines.append)
    assert lines[0] == f"STSB-dev: 1500 pairs from {sts_dir / 'STS/STSBenchmark'}"
    assert lines[1].startswith("bundled: ")
    assert len(lines) == 2


def test_tfds_is_read_where_it_is_named(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(sts, "from_tfds", lambda where: asked.append(where) or sts.bundled())
    suite.load(tasks=["tfds:glue/stsb"], tfds_dir=tmp_path)
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["STSB"], r"unknown task 'STSB'. Did you mean .*'STSB-dev'"),
        (["mr"], r"unknown task 'mr'. Did you mean 'MR'"),
        (["STSB-dev", "tfds:glue/stsb"], "the same set from two places"),
        (["MR"], "`tasks` MR: .*`transfer_dir`"),
    ],
)
def test_tasks_that_cannot_be_are_errors(sts_dir, tasks, message):
    with pytest.raises(UserError, match=message):
        suite.load(sts_dir, tasks=tasks)


def test_sts_tasks_need_their_directory(transfer_dir):
    with pytest.raises(UserError, match="`tasks` STS12 SICK-R: .*`sts_dir`"):
        suite.load(transfer_dir=transfer_dir, tasks=["STS12", "MR", "SICK-R"])


def test_a_task_that_was_named_must_be_there(tmp_path):
    write_task(tmp_path, "STSB-dev")
    with pytest.raises(UserError, match=r"FNWN.txt: not found, and STS13 needs it.*`fetch`"):
        suite.load(tmp_path, tasks=["STSB-dev", "STS13"])


def test_directories_without_a_single_set_are_an_error(tmp_path):
    with pytest.raises(UserError, match="none of the tasks is there. Expected SentEval's layout"):
        suite.load(tmp_path)


def test_a_cut_off_set_stops_everything_before_a_model_is_needed(sts_dir, transfer_dir):
    (transfer_dir / "MR" / "rt-polarity.neg").write_text("")
    with pytest.raises(UserError, match=r"rt-polarity.neg: no sentences. Is the file complete\?"):
        suite.load(sts_dir, transfer_dir)


def test_nan_in_one_task_scores_nothing(sts_dir):
    def broken(texts):
        vectors = encode(texts)
        vectors[3] = np.nan
        return vectors

    with pytest.raises(UserError, match="STSB-dev: the encoder gave NaN or infinity for 1 sentence"):
        suite.judge(broken, suite.load(sts_dir, tasks=["STSB-dev"]))


def test_versions_name_what_figures_depend_on():
    versions = suite.versions()
    assert {"simcse_tf", "python", "tensorflow", "keras_hub", "numpy", "scipy"} <= versions.keys()
    assert versions["numpy"] == np.__version__
