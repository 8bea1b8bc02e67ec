"""`python -m simcse_tf.evaluate` on the tiny BERT, and the published figures of MiniLM."""

import json
import subprocess
import sys

import numpy as np
import pytest

from simcse_tf import evaluate, export, loading, open_development_set
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts
from tests.conftest import SENTENCES, unchecked
from tests.evaluation.layout import replace_line


@pytest.fixture(scope="module")
def sts_dir(tmp_path_factory):
    """STS-B, dev and test, in sentences that the tiny BERT knows."""
    root = tmp_path_factory.mktemp("sts")
    rng = np.random.default_rng(0)
    for split in ("dev", "test"):
        path = root / "STS" / "STSBenchmark" / f"sts-{split}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        n = sts.TASKS[f"STSB-{split}"].pairs
        rows = zip(rng.integers(0, 60, n), rng.integers(0, 60, n), rng.integers(0, 51, n) / 10, strict=True)
        path.write_text("".join(f"g\tf\ty\t0\t{s}\t{SENTENCES[a]}\t{SENTENCES[b]}\n" for a, b, s in rows), "utf-8")
    return root


def run(capsys, *arguments):
    evaluate.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_scores_of_a_preset(capsys, tiny_preset, sts_dir):
    report, shown = run(capsys, tiny_preset, "--sts-dir", sts_dir)
    expected = sts.evaluate(loading.load(str(tiny_preset)).encode, sts.load("STSB-dev", sts_dir))
    assert report["scores"] == {
        "STSB-dev": pytest.approx(expected.all.spearman),
        "STSB-test": report["scores"]["STSB-test"],
    }
    assert report["details"]["STSB-dev"]["all"]["pearson"] == pytest.approx(expected.all.pearson)
    assert report["missing"] == ["STS12", "STS13", "STS14", "STS15", "STS16", "SICK-R"]
    assert report["average"] is None
    assert report["geometry"]["task"] == "STSB-dev"
    assert report["model"] == str(tiny_preset)
    assert "tensorflow" in report["versions"]
    row = next(line for line in shown.splitlines() if "STSB-dev" in line and "pairs from" not in line)
    assert f"{expected.all.spearman:.2f}" in row
    assert "No average: it is over the paper's 7 tasks" in " ".join(shown.split())


def test_another_pooling_gives_other_scores(capsys, tiny_preset, sts_dir):
    plain, _ = run(capsys, tiny_preset, "--sts-dir", sts_dir, "--tasks", "STSB-test")
    pooled, _ = run(capsys, tiny_preset, "--sts-dir", sts_dir, "--tasks", "STSB-test", "--pooling", "avg")
    assert list(plain["scores"]) == list(pooled["scores"]) == ["STSB-test"]
    assert abs(plain["scores"]["STSB-test"] - pooled["scores"]["STSB-test"]) > 0.1
    vectors = loading.load(str(tiny_preset), "avg").encode(SENTENCES[:3])
    assert np.abs(vectors - loading.load(str(tiny_preset)).encode(SENTENCES[:3])).max() > 0.01


def test_an_exported_model_scores_as_what_it_was_exported_from(capsys, tiny_preset, sts_dir, tmp_path):
    with unchecked():
        export.main([str(tiny_preset), "--to", str(tmp_path / "model"), "--pooling", "avg"])
    capsys.readouterr()
    exported, _ = run(capsys, tmp_path / "model", "--sts-dir", sts_dir)
    live, _ = run(capsys, tiny_preset, "--pooling", "avg", "--sts-dir", sts_dir)
    assert exported["scores"] == pytest.approx(live["scores"], abs=0.01)
    with pytest.raises(UserError, match="`pooling` cls: .*model is an exported model, whose pooler is fixed"):
        evaluate.main([str(tmp_path / "model"), "--pooling", "cls"])


def test_an_address_is_handed_to_the_client(monkeypatch, capsys, sts_dir):
    from simcse_tf.serving import client

    class Served:
        def __init__(self, where, dim=None):
            assert (where, dim) == ("grpc://localhost:8500/quickstart", 3)

        def encode(self, texts, **_):
            return np.random.default_rng(0).normal(size=(len(texts), 4))

    monkeypatch.setattr(client, "Client", Served)
    address = ["grpc://localhost:8500/quickstart", "--dim", "3"]
    report, _ = run(capsys, *address, "--sts-dir", sts_dir, "--tasks", "STSB-dev")
    assert -10 < report["scores"]["STSB-dev"] < 10


def test_the_command_line_writes_the_report_into_a_file(tiny_preset, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "simcse_tf.evaluate", str(tiny_preset), "--output", str(tmp_path / "r.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]
    report = json.loads((tmp_path / "r.json").read_text("utf-8"))
    assert list(report["scores"]) == ["bundled"]
    assert "bundled" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "MODEL is needed"),
        (["minilms"], "unknown preset 'minilms'. Did you mean 'minilm'"),
        (["{preset}", "--sts-dir", "nowhere"], "nowhere: no such directory"),
        (["{preset}", "--tasks", "STS11"], "unknown task 'STS11'. Did you mean 'STS1"),
        (["{preset}", "--output", "nowhere/r.json"], "the directory nowhere does not exist"),
        (["{preset}", "--output", "."], "--output .: is a directory"),
        (["{preset}", "--report", "--pooling", "avg"], "omit --output, --pooling and --dim"),
        (["{preset}", "--fetch", "d", "--output", "o"], "--fetch only downloads: omit MODEL and --output"),
        (["{preset}", "--report"], "not a run directory"),
    ],
)
def test_wrong_flags_are_named(tiny_preset, flags, message):
    with pytest.raises(UserError, match=message):
        evaluate.main([flag.format(preset=tiny_preset) for flag in flags])


def test_fetch_downloads_and_does_nothing_else(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(evaluate, "fetch", lambda *arguments, say: asked.append(arguments))
    evaluate.main(["--fetch", str(tmp_path), "--tasks", "STS12"])
    evaluate.main(["--fetch", str(tmp_path)])
    assert asked == [(tmp_path, ("STS12",)), (tmp_path, None)]


class TestBadSets:
    """Each is found before TensorFlow is imported, and names file and line."""

    CODE = (
        "import sys, importlib.abc\n"
        "class Refuse(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name in ('tensorflow', 'keras', 'scipy', 'matplotlib'): raise AssertionError('imported ' + name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from simcse_tf import cli, evaluate\n"
        "sys.argv = ['evaluate', *sys.argv[1:]]\n"
        "cli.run(evaluate.main)\n"
    )

    def failure(self, *arguments):
        done = subprocess.run(
            [sys.executable, "-c", self.CODE, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        return done.stderr

    def test_help_comes_without_tensorflow(self):
        done = subprocess.run([sys.executable, "-c", self.CODE, "--help"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--transfer-dir" in done.stdout

    def test_a_cut_off_file_and_a_score_out_of_range(self, tiny_preset, sts_dir, tmp_path):
        dev = tmp_path / "STS" / "STSBenchmark" / "sts-dev.csv"
        dev.parent.mkdir(parents=True)
        lines = (sts_dir / "STS" / "STSBenchmark" / "sts-dev.csv").read_text("utf-8")
        dev.write_text(lines[: len(lines) // 2].rsplit("\n", 1)[0] + "\n", "utf-8")
        message = self.failure(tiny_preset, "--sts-dir", tmp_path)
        assert f"{dev}: 7" in message
        assert "STSB-dev has 1500 here. Is the file cut off?" in message
        dev.write_text(lines, "utf-8")
        replace_line(dev, 17, "g\tf\ty\t0\t5.5\ta\tb")
        assert f"{dev}:17: the score 5.5 is out of range" in self.failure(tiny_preset, "--sts-dir", tmp_path)


@pytest.mark.slow
def test_minilm_has_its_published_score(capsys, minilm, shared_data):
    flags = ["--pooling", "avg", "--sts-dir", shared_data / "sts", "--tasks", "STSB-test"]
    report, _ = run(capsys, minilm, *flags)
    assert report["scores"] == {"STSB-test": pytest.approx(82.03, abs=0.02)}


def test_sets_of_ones_own_are_scored_by_their_kind(capsys, tiny_preset, tmp_path):
    (tmp_path / "docs.jsonl").write_text(
        "".join(json.dumps({"q": a, "d": b}) + "\n" for a, b in zip(SENTENCES[:20], SENTENCES[20:40], strict=True))
    )
    (tmp_path / "same.csv").write_text("x,y,label\n" + "".join(f"{s},{s},1\n{s},bread,0\n" for s in SENTENCES[:9]))
    files = [tmp_path / "docs.jsonl", tmp_path / "same.csv"]
    report, shown = run(capsys, tiny_preset, "--on", *files, "--columns", "q", "d")
    assert report["scores"] == {}
    found = report["on"]
    assert found["docs"]["size"] == "20 queries, 20 documents"
    expected = open_development_set(files[0], columns=("q", "d")).figures(loading.load(str(tiny_preset)).encode)
    assert found["docs"]["figures"] == pytest.approx(expected)
    assert found["same"]["figures"]["average_precision"] == pytest.approx(100)
    assert found["same"]["figures"]["accuracy"] == 100
    assert "docs: 20 queries, 20 documents" in shown
    assert f"{expected['mrr@10']:.2f}" in shown
