"""The whole program on the tiny BERT: train, interrupt, resume, export. In this process, as `main` would run."""

import contextlib
import importlib.util
import io
import itertools
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from simcse_tf import evaluate, open_development_set, runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts
from simcse_tf.formats import card, presets, savedmodel
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.report.report import write_report
from simcse_tf.serving.client import Client
from simcse_tf.training.callbacks import Evaluation, NonFiniteLossError
from simcse_tf.training.simcse import SimCSE
from tests.conftest import SENTENCES, unchecked, write_triplets


def flags_of(preset, data, run):
    return [
        "quickstart",
        *("--preset", str(preset), "--data", str(data), "--batch-size", "8", "--max-length", "12"),
        *("--learning-rate", "1e-3", "--eval-every", "2", "--export-to", "None", "--no-report"),
        *("--output-dir", str(run)),
    ]


@pytest.fixture
def flags(tiny_preset, sentences_file, tmp_path):
    return flags_of(tiny_preset, sentences_file, tmp_path / "run")


@pytest.fixture(scope="module")
def complete(tiny_preset, tmp_path_factory):
    """A complete run of 2 steps, of 60 sentences and 2 bad rows; its flags, its result, and what it showed."""
    root = tmp_path_factory.mktemp("complete")
    data, out, shown = root / "sentences.txt", io.StringIO(), io.StringIO()
    data.write_bytes("".join(s + "\n" for s in SENTENCES).encode() + b"caf\xe9\n\xff\n")
    flags = [*flags_of(tiny_preset, data, root / "run"), "--max-steps", "2", "--skip-bad-rows", "--resume"]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(shown):
        train.main(flags)
    return SimpleNamespace(flags=flags, run=root / "run", result=json.loads(out.getvalue()), shown=shown.getvalue())


@pytest.fixture
def copy_of_complete(complete, tmp_path):
    """The flags of a copy of that run, in `tmp_path / "run"`."""
    shutil.copytree(complete.run, tmp_path / "run", symlinks=True)
    return [*complete.flags, "--output-dir", str(tmp_path / "run")]


WITHOUT_TENSORFLOW = (
    "import sys, importlib.abc\n"
    "class Refuse(importlib.abc.MetaPathFinder):\n"
    "    def find_spec(self, name, *_):\n"
    "        if name in ('tensorflow', 'keras', 'scipy'): raise AssertionError('imported ' + name)\n"
    "sys.meta_path.insert(0, Refuse())\n"
    "from simcse_tf import cli, train\n"
    "sys.argv[0] = 'train'\n"
    "cli.run(train.main)\n"
)


def run(capsys, flags):
    train.main(flags)
    return json.loads(capsys.readouterr().out)


def metrics(tmp_path, run="run"):
    return [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text("utf-8").splitlines()]


@contextlib.contextmanager
def killed_after(step, run, copy):
    """What a kill after a step would have left of a run is copied."""
    on_step = Evaluation.on_step

    def copying(self, loss):
        on_step(self, loss)
        if self.step == step:
            shutil.copytree(run, copy, symlinks=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "on_step", copying)
        yield


def test_a_run_from_text_to_saved_model(capsys, flags, tmp_path):
    with unchecked():
        result = run(capsys, [*flags, "--export-to", str(tmp_path / "saved" / "tiny")])
    assert result["steps"] == 7  # 60 sentences, batches of 8, the rest dropped
    evaluations = {m["step"]: m["dev"] for m in metrics(tmp_path) if "dev" in m}
    assert list(evaluations) == [0, 2, 4, 6, 7]
    assert result["spearman_before"] == round(evaluations[0], 2)
    assert result["spearman_after"] == round(max(evaluations.values()), 2)
    assert evaluations[result["best_step"]] == max(evaluations.values())
    assert [m["step"] for m in metrics(tmp_path) if "loss" in m] == [1, 2, 3, 4, 5, 6, 7]
    rates = [m["learning_rate"] for m in metrics(tmp_path) if "loss" in m]
    np.testing.assert_allclose(rates, [1e-3 * (1 - step / 7) for step in range(1, 8)], rtol=1e-4, atol=1e-9)
    config = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text("utf-8"))
    assert (config.batch_size, config.learning_rate) == (8, 1e-3)

    assert result["saved_model"] == str(tmp_path / "saved" / "tiny" / "1")
    texts = ["the dog sleeps .", "a man", ""]
    best, exported = load_encoder(presets.locate(str(tmp_path / "run"))), Client(tmp_path / "saved" / "tiny")
    np.testing.assert_allclose(exported.encode(texts), best.encode(texts), atol=1e-5)
    # What is exported is what was scored: without the head, which is for training only.
    assert best.config.head == "train_only"
    score = sts.evaluate(exported.encode, sts.bundled()).all.spearman
    assert score == pytest.approx(result["spearman_after"], abs=0.01)


def test_a_stopped_run_continues_to_the_same_weights(capsys, flags, tmp_path):
    flags, killed = [*flags, "--epochs", "2"], tmp_path / "killed"
    with killed_after(9, tmp_path / "run", killed):
        whole = run(capsys, flags)
    assert max(m["step"] for m in metrics(tmp_path, "killed")) == 9
    resumed = run(capsys, [*flags, "--resume", "--output-dir", str(killed)])
    assert resumed == whole | {"run": str(killed)}
    assert_equal_states(killed, tmp_path / "run")
    steps = [m["step"] for m in metrics(tmp_path, "killed") if "loss" in m]
    assert steps == list(range(1, 15))


def test_a_complete_run_is_found_complete_without_tensorflow(complete):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, *complete.flags], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == complete.result
    assert "training is complete (2 steps)" in done.stderr


def test_a_complete_run_is_exported_and_reported_where_that_is_missing(capsys, copy_of_complete, tmp_path, monkeypatch):
    flags, to = copy_of_complete, tmp_path / "saved" / "tiny"
    monkeypatch.setattr(SimCSE, "fit", None)
    monkeypatch.setattr(savedmodel, "_check", lambda *_: None)
    exported = run(capsys, [*flags, "--export-to", str(to)])
    assert exported["saved_model"] == str(to / "1")
    assert run(capsys, [*flags, "--export-to", str(to)]) == exported
    assert [path.name for path in to.iterdir() if path.is_dir()] == ["1"]
    shutil.rmtree(to)
    monkeypatch.setattr("simcse_tf.report.report.write_report", lambda run: (run / "report.html", run / "report.json"))
    # Of the run before its end: `evaluate RUN --report` writes one at any time.
    (tmp_path / "run" / "report.html").write_text("too early", "utf-8")
    again = run(capsys, [*flags, "--export-to", str(to), "--report"])
    assert (to / "1" / "saved_model.pb").is_file()
    assert again == exported | {"report": str(tmp_path / "run" / "report.html")}


def test_other_workers_find_a_complete_run_complete_too(capsys, complete, monkeypatch):
    workers = {"cluster": {"worker": ["host0:1", "host1:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    train.main(complete.flags)
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="has `seed` 42, not 43"):
        train.main([*complete.flags, "--seed", "43"])


def test_a_longest_text_that_the_encoder_has_no_positions_for_is_refused(flags, tmp_path):
    with pytest.raises(UserError, match="`max_length` 33: this encoder has only 32 positions"):
        train.main([*flags, "--max-length", "33"])
    assert not (tmp_path / "run").exists()


def test_a_score_is_printed_once_and_the_last_lines_say_what_to_do_next(
    capsys, complete, copy_of_complete, tmp_path, monkeypatch
):
    line = next(line for line in complete.shown.splitlines() if line.startswith("step      0"))
    assert "with head" in line
    assert "without head" not in line
    monkeypatch.setattr("simcse_tf.report.report.write_report", lambda run: (run / "report.html", run / "report.json"))
    train.main([*copy_of_complete, "--report"])
    shown = capsys.readouterr().err
    assert "writing the report" in shown
    steps = shown[shown.index("next:") :]
    assert f"open {tmp_path / 'run' / 'report.html'}" in steps
    assert f"simcse_tf.export {complete.run} --to" in steps
    assert f"simcse_tf.evaluate {complete.run}" in steps


def state(directory):
    from safetensors.numpy import load_file

    (newest,) = (directory / "checkpoints").glob("state-*")
    return load_file(newest / "variables.safetensors")


def assert_equal_states(run, expected):
    found, expected = state(run), state(expected)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_a_non_finite_loss_stops_the_run_and_keeps_the_best(flags, tmp_path):
    with pytest.raises(
        NonFiniteLossError, match=r"the loss is nan at step \d \(learning rate .*Try a lower `learning_rate`"
    ):
        train.main([*flags, "--learning-rate", "1e30", "--clip-norm", "1e30"])
    best = load_encoder(presets.locate(str(tmp_path / "run")))
    assert np.isfinite(best.encode(["a dog"])).all()


def test_supervised_training_keeps_and_exports_the_head(capsys, tiny_preset, triplets_file, tmp_path):
    flags = ["sup-bert-base", "--preset", str(tiny_preset), "--data", str(triplets_file), "--dev", "bundled"]
    flags += ["--batch-size", "4", "--max-length", "12", "--max-steps", "3", "--eval-every", "2", "--no-report"]
    with unchecked():
        result = run(capsys, [*flags, "--output-dir", str(tmp_path / "run"), "--export-to", str(tmp_path / "exported")])
    last = [m for m in metrics(tmp_path) if "dev" in m][-1]
    assert last["dev"] == last["dev_with_head"] != last["dev_without_head"]
    best = load_encoder(presets.locate(str(tmp_path / "run")))
    without, with_head = best.encode_with_and_without_head(["the dog eats", "a man"])
    exported = Client(result["saved_model"]).encode(["the dog eats", "a man"])
    np.testing.assert_allclose(exported, with_head, atol=1e-5)
    assert np.abs(exported - without).max() > 1e-3


@pytest.mark.parametrize(
    ("loss", "precision", "header", "value"),
    [
        ("infonce", "bfloat16", "anchor,positive,negative_1,negative_2", "{a},{b},{a},{b}"),
        ("infonce", "off", "text,label", "{a},{class_}"),
        ("triplet", "float16", "anchor,positive,negative", "{a},{b},{a}"),
        ("cosent", "bfloat16", "sentence1,sentence2,score", "{a},{b},{class_}"),
        ("align_uniform", "off", "text", "{a}"),
    ],
    ids=["hard negatives", "classes", "triplets", "graded pairs", "alignment and uniformity"],
)
def test_every_kind_of_rows_and_every_objective_run(capsys, tiny_preset, tmp_path, loss, precision, header, value):
    data = tmp_path / "data.csv"
    rows = [value.format(a=a, b=b, class_=i % 3) for i, (a, b) in enumerate(itertools.pairwise(SENTENCES))]
    data.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    flags = ["--preset", str(tiny_preset), "--data", str(data), "--batch-size", "4", "--max-length", "12"]
    flags += ["--dev", "bundled", "--max-steps", "2", "--export-to", "None", "--no-report"]
    flags += ["--output-dir", str(tmp_path / "run"), "--loss", loss, "--mixed-precision", precision]
    assert run(capsys, flags)["steps"] == 2
    steps = [m for m in metrics(tmp_path) if "loss" in m]
    assert len(steps) == 2
    assert np.isfinite([m["loss"] for m in steps]).all()
    if loss == "cosent":  # Its pairs have no negatives, whatever texts they share.
        assert [m["false_negatives"] for m in steps] == [0, 0]


def test_without_the_extra_report_a_run_says_so_before_it_starts(monkeypatch, capsys, flags):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "matplotlib" else find_spec(n))
    heard = []
    monkeypatch.setattr(train, "_train", lambda *_: heard.append(capsys.readouterr().err))
    train.main([flag for flag in flags if flag != "--no-report"])
    assert "pip install 'simcse-tf[report]'" in heard[0]


def test_skipped_rows_are_counted(complete):
    assert "2 bad rows are skipped, 60 are used; the first bad one: " in complete.shown


class TestOutputDirectory:
    def test_another_run_is_not_overwritten(self, capsys, copy_of_complete, tmp_path):
        flags = [flag for flag in copy_of_complete if flag != "--resume"]
        before = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8")
        with pytest.raises(
            UserError, match="already holds a run. Continue it with `resume`, replace it with `overwrite`"
        ):
            train.main(flags)
        assert (tmp_path / "run" / "metrics.jsonl").read_text("utf-8") == before
        run(capsys, [*flags, "--max-steps", "1", "--overwrite"])
        assert max(m["step"] for m in metrics(tmp_path)) == 1

    def test_somebody_elses_files_are_not_touched_even_with_overwrite(self, flags, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("x", "utf-8")
        with pytest.raises(UserError, match="holds files that are not a run's"):
            train.main([*flags, "--overwrite"])
        assert (tmp_path / "run" / "thesis.tex").is_file()

    def test_resume_starts_where_there_is_no_run_and_refuses_another_configuration(self, complete):
        assert complete.result["steps"] == 2
        with pytest.raises(UserError, match=r"has `temperature` 0\.3, not 0\.1"):
            train.main([*complete.flags, "--temperature", "0.1"])

    def test_resume_does_not_touch_somebody_elses_files(self, flags, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.tex").write_text("x", "utf-8")
        with pytest.raises(UserError, match="holds files that are not a run's"):
            train.main([*flags, "--resume"])


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "simcse_tf.train", *arguments], capture_output=True, text=True, check=False
    )


def test_the_command_line_runs(tiny_preset, sentences_file, tmp_path):
    done = command(
        *("--preset", str(tiny_preset), "--data", str(sentences_file), "--batch-size", "8", "--max-length", "12"),
        *("--max-steps", "2", "--output-dir", str(tmp_path / "run"), "--export-to", str(tmp_path / "exported")),
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (tmp_path / "exported" / "1" / "saved_model.pb").is_file()
    assert result["saved_model"] == str(tmp_path / "exported" / "1")
    assert "<html" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "step      2  bundled: spearman" in done.stderr


def test_help_and_complaints_come_without_tensorflow():
    helped = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "--help"], capture_output=True, text=True, check=False
    )
    assert helped.returncode == 0
    assert "--hard-negative-weight" in helped.stdout
    failed = subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, "--loss", "triplet", "--output-dir", "/nowhere/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 2
    assert "--loss triplet needs anchor, positive and hard negative" in failed.stderr


def test_a_prompt_that_leaves_no_room_for_a_text_begins_no_run(flags, tmp_path):
    with pytest.raises(UserError, match="`passage_prompt` .*leaves no room for a text within `max_length` 12"):
        train.main([*flags, "--passage-prompt", "dog " * 10])
    assert not (tmp_path / "run").exists()


def test_the_last_encoder_is_kept_where_no_set_selects(capsys, flags, tmp_path):
    result = run(capsys, [*flags, "--select-by", "last", "--learning-rate", "1e-1", "--max-steps", "4"])
    evaluations = [m for m in metrics(tmp_path) if "dev" in m]
    assert max(evaluations, key=lambda m: m["dev"])["step"] < 4
    assert (result["best_step"], result["spearman_after"]) == (4, round(evaluations[-1]["dev"], 2))
    best = load_encoder(presets.locate(str(tmp_path / "run")))
    score = sts.evaluate(best.encode, sts.bundled()).all.spearman
    assert score == pytest.approx(evaluations[-1]["dev"], abs=0.01)
    write_report(tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert [each["role"] for each in report["changes"]] == ["tests"]
    assert report["conclusion"]["notes"] == ["Nothing chose the step: the last encoder was kept."]


def test_sets_of_ones_own_judge_a_run_under_their_own_names(capsys, flags, tmp_path):
    """Retrieval selects, graded pairs stand beside it; with head and prompts; result, table, card and report say so."""
    pairs = tmp_path / "docs.csv"
    pairs.write_text("query,document\n" + "".join(f"{a},{b}\n" for a, b in itertools.pairwise(SENTENCES)))
    sets = ["--dev", "bundled", str(pairs), "--select-by", "docs", "--head", "always", "--pooling", "cls"]
    prompts = ["--query-prompt", "a man ", "--passage-prompt", "the "]
    flags = [*flags, *sets, *prompts, "--max-steps", "4"]
    train.main(flags)
    out, shown = capsys.readouterr()
    result, run_ = json.loads(out), tmp_path / "run"
    evaluations = [m for m in metrics(tmp_path) if "dev" in m]
    assert [m["step"] for m in evaluations] == [0, 2, 4]
    for m in evaluations:
        assert m["dev"] == m["docs/ndcg@10"] == m["dev_with_head"]
        assert 0 <= m["docs/recall@1"] <= m["docs/recall@5"] <= m["docs/recall@10"] <= 100
        assert "alignment" not in m
        assert {"bundled/spearman", "bundled/pearson", "bundled/uniformity"} <= m.keys()
    best = max(evaluations, key=lambda m: m["dev"])
    assert (result["development_set"], result["best_step"]) == ("docs", best["step"])
    assert (result["ndcg@10_before"], result["ndcg@10_after"]) == (
        round(evaluations[0]["dev"], 2),
        round(best["dev"], 2),
    )
    assert "docs, best of 4 steps" in shown
    assert "development set docs: 59 queries, 59 documents (retrieval)" in shown
    assert f"{best['bundled/spearman']:.2f}" in shown.split("best of 4 steps")[1]

    # What is exported scores what was logged.
    encoder = load_encoder(presets.locate(str(run_)))
    assert encoder.config.prompts == {"query": "a man ", "passage": "the "}
    assert open_development_set(pairs).figures(encoder.encode)["ndcg@10"] == pytest.approx(best["dev"], abs=0.01)
    card.write(encoder, tmp_path, name="tiny", source=str(run_))
    assert "| encoder | nDCG@10 x 100 |" in (tmp_path / card.CARD_FILE).read_text("utf-8")

    write_report(run_)
    report = json.loads((run_ / "report.json").read_text("utf-8"))
    assert report["selected_by"]["label"] == "nDCG@10 x 100"
    assert report["after"]["on"]["docs"]["figures"]["ndcg@10"] == pytest.approx(best["dev"], abs=0.01)
    assert report["after"]["on"]["bundled"]["figures"]["spearman"] == pytest.approx(best["bundled/spearman"], abs=0.01)
    html = (run_ / "report.html").read_text("utf-8")
    assert "nDCG@10 x 100 on docs over steps" in html
    assert "docs, nDCG@10 x 100 against bundled, Spearman x 100" in html
    assert "recall@5 x 100" in html

    pairs.write_text(pairs.read_text() + "a dog,a cat\n")
    with pytest.raises(UserError, match="the development set, or one of several, changed since"):
        train.main([*flags, "--resume"])


def test_every_size_of_a_matryoshka_run_is_scored_logged_and_shown(capsys, flags, tmp_path):
    flags = [*flags, "--matryoshka", "16", "4", "8", "--matryoshka-weights", "1", "0.5", "1", "--max-steps", "2"]
    train.main([*flags, "--report"])
    _, shown = capsys.readouterr()
    evaluations = [m for m in metrics(tmp_path) if "dev" in m]
    encoder = load_encoder(presets.locate(str(tmp_path / "run")))
    assert (encoder.config.matryoshka, encoder.sizes, encoder.dim) == ((16, 4, 8), (8, 4), 16)
    best = max(evaluations, key=lambda m: m["dev"])
    for size in (4, 8):
        for line in evaluations:
            assert line[f"dev_dim_{size}"] == line[f"bundled/spearman_dim_{size}"] != line["dev"]
        cut = load_encoder(presets.locate(str(tmp_path / "run")), replace(encoder.config, dim=size))
        score = sts.evaluate(cut.encode, sts.bundled()).all.spearman
        assert score == pytest.approx(best[f"dev_dim_{size}"], abs=0.01)
        assert f"Spearman x 100, {size} dimensions" in shown
        assert f"spearman dim {size} {evaluations[0][f'dev_dim_{size}']:.2f}" in shown
    assert runs.read(tmp_path / "run").sizes == (8, 4)

    # The model card and the report have them.
    card.write(encoder, tmp_path, name="tiny", source=str(tmp_path / "run"))
    text = (tmp_path / card.CARD_FILE).read_text("utf-8")
    assert f"cut to 4 numbers | {best['bundled/spearman_dim_4']:.2f} |" in text
    assert "| matryoshka | (16, 4, 8) |" in text
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    (sizes,) = report["sizes"]
    assert [line[0] for line in sizes["lines"]] == ["all", "8", "4"]
    assert sizes["lines"][2][1:] == [evaluations[0]["dev_dim_4"], best["dev_dim_4"]]
    assert "Fewer dimensions" in (tmp_path / "run" / "report.html").read_text("utf-8")

    # So has `evaluate`, which encodes once; of one size alone it has that.
    capsys.readouterr()
    evaluate.main([str(tmp_path / "run")])
    out, shown = capsys.readouterr()
    found = json.loads(out)
    assert found["sizes"]["4"]["bundled"] == pytest.approx(best["dev_dim_4"], abs=0.01)
    assert "The first numbers of every vector alone" in shown
    evaluate.main([str(tmp_path / "run"), "--dim", "4"])
    of_four = json.loads(capsys.readouterr().out)
    assert (of_four["dim"], of_four["sizes"]) == (4, {})
    assert of_four["scores"]["bundled"] == pytest.approx(best["dev_dim_4"], abs=0.01)


def test_a_run_without_graded_pairs_has_a_report_without_their_picture(capsys, flags, tmp_path):
    triplets = write_triplets(tmp_path)
    run(capsys, [*flags, "--dev", str(triplets), "--head", "none", "--max-steps", "2", "--report"])
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert report["before"]["on"]["triplets"]["figures"].keys() == {"accuracy"}
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "accuracy x 100 on triplets over steps" in html
    assert "Alignment and uniformity" not in html


def test_a_run_judged_by_a_part_of_its_data_continues_to_the_same_weights(capsys, flags, tmp_path):
    pairs, killed = tmp_path / "pairs.csv", tmp_path / "killed"
    rows = itertools.islice(itertools.permutations(SENTENCES, 2), 0, None, 17)
    # Each row twice, so that there are groups; a text more makes each group its own.
    pairs.write_text("anchor,positive\n" + "".join(f"{a} {i} !,{b} {i} ?\n" * 2 for i, (a, b) in enumerate(rows)))
    flags = [*flags, "--data", str(pairs), "--max-steps", "6", "--save-every", "1"]
    with killed_after(4, tmp_path / "run", killed):
        train.main(flags)
    out, shown = capsys.readouterr()
    whole = json.loads(out)
    held = (tmp_path / "run" / "held_out.jsonl").read_text("utf-8")
    assert whole["development_set"] == "held-out"
    assert f"{held.count(chr(10))} of 418 rows are held out of training" in " ".join(shown.split())

    assert run(capsys, [*flags, "--resume", "--output-dir", str(killed)]) == whole | {"run": str(killed)}
    assert_equal_states(killed, tmp_path / "run")
    assert (killed / "held_out.jsonl").read_text("utf-8") == held
    # The report judges by the same rows.
    write_report(killed)
    report = json.loads((killed / "report.json").read_text("utf-8"))
    assert report["before"]["on"]["held-out"]["figures"]["ndcg@10"] == pytest.approx(whole["ndcg@10_before"], abs=0.01)
