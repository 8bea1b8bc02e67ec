"""`report.html` and `report.json` of small runs of the tiny BERT."""

import itertools
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from simcse_tf import evaluate, train
from simcse_tf.errors import UserError
from simcse_tf.evaluation import sts
from simcse_tf.evaluation.development import Graded
from simcse_tf.report import figures, page
from simcse_tf.report.report import write_report
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def runs(tiny_preset, tmp_path_factory):
    """An unsupervised run (head in training only) and a supervised one (head kept), each with its report."""
    root = tmp_path_factory.mktemp("runs")
    (root / "sentences.txt").write_text("".join(s + "\n" for s in SENTENCES), "utf-8")
    (root / "pairs.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in itertools.pairwise(SENTENCES)))
    common = [
        "--preset",
        str(tiny_preset),
        "--dev",
        "bundled",
        "--batch-size",
        "8",
        "--max-length",
        "12",
        "--max-steps",
        "6",
    ]
    common += ["--eval-every", "2", "--learning-rate", "1e-3", "--export-to", "None", "--no-report"]
    train.main(["unsup-bert-base", *common, "--data", str(root / "sentences.txt"), "--output-dir", str(root / "unsup")])
    train.main(["sup-bert-base", *common, "--data", str(root / "pairs.csv"), "--output-dir", str(root / "sup <b>")])
    for run in ("unsup", "sup <b>"):
        write_report(root / run)
    return root


def numbers(run):
    return json.loads((run / "report.json").read_text("utf-8"))


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("name", ["unsup", "sup <b>"])
def test_before_and_after_are_the_first_and_the_best_evaluation_of_training(runs, name):
    report = numbers(runs / name)
    evaluations = [m for m in metrics(runs / name) if "dev" in m]
    best = max(evaluations, key=lambda m: m["dev"])
    # The supervised encoder begins with a random head: the same one has to come back.
    assert report["before"]["scores"]["bundled"] == pytest.approx(evaluations[0]["dev"], abs=1e-3)
    assert report["after"]["scores"]["bundled"] == pytest.approx(best["dev"], abs=1e-3)
    for when, line in (("before", evaluations[0]), ("after", best)):
        for key in ("alignment", "uniformity"):
            assert report[when]["geometry"][key] == pytest.approx(line[key], abs=1e-4)
    assert report["best_step"] == best["step"]
    assert report["steps"] == 6
    assert report["curves"]["evaluations"] == evaluations
    assert report["curves"]["loss"] == [[m["step"], m["loss"]] for m in metrics(runs / name) if "loss" in m]


def test_the_similarities_give_the_scores(runs):
    report = numbers(runs / "unsup")
    from scipy.stats import spearmanr

    found = report["similarities"]
    for when in ("before", "after"):
        assert 100 * spearmanr(found["gold"], found[when]).statistic == pytest.approx(
            report[when]["scores"]["bundled"], abs=0.1
        )


def test_random_pairs_and_map_are_of_the_same_sentences_before_and_after(runs):
    report = numbers(runs / "unsup")
    random, found = report["random_pairs"], report["map"]
    bundled = sts.bundled()
    assert found["sentences"] == len(set(bundled.a + bundled.b))
    assert sum(cluster["size"] for cluster in found["clusters"]) == found["sentences"]
    for when in ("before", "after"):
        assert sum(random[when]["counts"]) == random["pairs"]
        assert np.array(found[when]["points"]).shape == (len(found["shown"]), 2)
        assert 0 < found[when]["variance_shown"] <= 1
        # k-means put neighbours together; in the space that it saw and in the one made from it.
        assert found[when]["cosine_inside_clusters"] > found[when]["cosine_between_clusters"]
        shown = np.array(found[when]["points"])
        assert np.linalg.norm(shown.mean(axis=0)) < 0.1


class Page(HTMLParser):
    """Collects tags and text, and fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def html(runs):
    return (runs / "unsup" / "report.html").read_text("utf-8")


def test_the_page_needs_nothing_from_outside(html):
    assert len(html.encode()) < 3_000_000
    tags = Page(html).tags
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    for _, attributes in tags:
        for name, value in attributes.items():
            if name.endswith(("href", "src")):
                assert value.startswith("#"), (name, value)
    assert "@import" not in html
    assert re.findall(r"url\((?!#)", html) == []
    assert [t for t in tags if t[0] == "meta" and "width=device-width" in t[1].get("content", "")]
    assert "prefers-color-scheme: dark" in html


def test_every_reference_and_colour_in_the_page_is_defined_once(html):
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([\w-]+)', html)) <= set(ids)
    light, dark = html.split("@media")[0], html.split("@media")[1].split("} }")[0]
    used = set(re.findall(r"var\((--[\w-]+)\)", html))
    for scheme in (light, dark):
        assert used <= set(re.findall(r"(--[\w-]+):", scheme)) | {"--card"}
    assert "#0102" not in html


def test_the_page_has_every_picture_and_the_numbers_of_the_json(runs, html):
    parsed = Page(html)
    pictures = [attributes["aria-label"] for tag, attributes in parsed.tags if tag == "svg"]
    assert pictures == [
        "Training loss over steps",
        "Spearman x 100 on bundled over steps",
        "Cosine similarity against grade, before",
        "Cosine similarity against grade, after",
        "Cosine similarity of random pairs, before and after",
        "Alignment and uniformity over the course of training",
        "Sentences of the development set in two dimensions, before",
        "Sentences of the development set in two dimensions, after",
    ]
    report = numbers(runs / "unsup")
    for when in ("before", "after"):
        assert f"{report[when]['scores']['bundled']:.2f}".replace("-", "\N{MINUS SIGN}") in parsed.text
        assert f"{report[when]['geometry']['uniformity']:.4f}".replace("-", "\N{MINUS SIGN}") in parsed.text
    assert "learning_rate" in parsed.text
    assert report["versions"]["report"]["tensorflow"] in parsed.text


def test_names_are_escaped(runs):
    assert "<h1>sup &lt;b&gt;: what training changed</h1>" in (runs / "sup <b>" / "report.html").read_text("utf-8")


def test_the_command_writes_the_report_of_more_sets(runs, tmp_path, capsys):
    shutil.copytree(runs / "unsup", tmp_path / "run", symlinks=True)
    for name in ("report.html", "report.json"):
        (tmp_path / "run" / name).unlink()
    for kind, word in (("pos", "cat"), ("neg", "river")):
        path = tmp_path / "downstream" / "MR" / f"rt-polarity.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"the {word} is {'old ' * (i % 7)}.\n" for i in range(12)), "latin-1")
    evaluate.main([str(tmp_path / "run"), "--report", "--transfer-dir", str(tmp_path / "downstream")])
    assert capsys.readouterr().out.split() == [str(tmp_path / "run" / f"report.{kind}") for kind in ("html", "json")]
    report = numbers(tmp_path / "run")
    assert report["before"]["transfer"]["MR"]["accuracy"] > 50
    text = Page((tmp_path / "run" / "report.html").read_text("utf-8")).text
    assert "MR transfer, accuracy" in text
    assert "Not there, so not scored: CR, SUBJ, MPQA, SST2, TREC, MRPC." in text


def test_a_run_that_never_improved_says_so(runs):
    report = numbers(runs / "unsup") | {"best_step": 0}
    assert "No step improved on the encoder that training began with" in page.page(report)


def test_a_run_without_alignment_in_its_metrics_still_shows_the_two_ends(runs):
    report = numbers(runs / "unsup")
    for line in report["curves"]["evaluations"]:
        del line["alignment"], line["uniformity"]
    assert "Alignment and uniformity over the course of training" in page.page(report)


def test_a_change_for_the_worse_is_marked_as_such(runs):
    report = numbers(runs / "unsup")
    report["before"]["scores"]["bundled"], report["after"]["scores"]["bundled"] = 40.0, 38.5
    report["before"]["geometry"]["alignment"], report["after"]["geometry"]["alignment"] = 0.4, 0.2
    # Of a development set too.
    for when, alignment in (("before", 0.5), ("after", 0.5042)):
        report[when]["on"]["mine"] = {"labels": Graded.labels, "figures": {"spearman": 50, "alignment": alignment}}
    text = page.page(report)
    assert "<td class='n worse'>+0.0042</td>" in text
    assert "<td class='n worse'>&minus;1.50</td>" in text
    assert "<td class='n better'>&minus;0.2000</td>" in text


def test_a_scatter_has_a_dot_for_every_pair():
    svg = figures.similarity([0.0, 2.5, 5.0, 5.0], [0.1, 0.5, 0.9, 0.8], "before", 0.0)
    dots = re.findall(r"<use [^>]*fill: var\(--before\); fill-opacity: 0.35", svg)
    assert len(dots) == 4


def test_long_curves_are_averaged_in_groups():
    from simcse_tf.report.report import _thinned

    thin = _thinned([(step, float(step % 2)) for step in range(1, 5001)])
    assert len(thin) == 1000
    assert thin[0] == [5, 0.6]
    assert thin[-1][0] == 5000
    assert _thinned([]) == []


@pytest.mark.parametrize("module", ["matplotlib", "sklearn"])
def test_a_missing_extra_is_named_before_anything_is_read(monkeypatch, tmp_path, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"the report needs .*simcse-tf\[report\]"):
        write_report(tmp_path / "nowhere")


def test_the_map_is_the_same_every_time_and_its_components_point_where_their_largest_weight_is_positive():
    from simcse_tf.report.report import _map

    rng = np.random.default_rng(0)
    spaces = {when: rng.normal(size=(60, 8)) for when in ("before", "after")}
    spaces = {when: x / np.linalg.norm(x, axis=1, keepdims=True) for when, x in spaces.items()}
    sentences = [f"sentence {i}" for i in range(60)]
    found = _map(sentences, spaces)
    assert found == _map(sentences, spaces)
    # Written out: the two axes along which both spaces, each centred, vary most.
    centred = np.concatenate([space - space.mean(axis=0) for space in spaces.values()])
    axes = np.linalg.eigh(centred.T @ centred)[1][:, :-3:-1]
    axes *= np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    np.testing.assert_allclose(found["before"]["points"], centred[:60] @ axes, atol=1e-4)


class TestWhatIsNoRun:
    def test_a_directory_that_is_no_run(self, tmp_path):
        with pytest.raises(UserError, match="not a run directory"):
            write_report(tmp_path)

    def test_a_run_that_was_not_evaluated_yet(self, runs, tmp_path):
        shutil.copytree(runs / "unsup", tmp_path / "run", symlinks=True)
        (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
        with pytest.raises(UserError, match="not been evaluated yet.*`resume`"):
            write_report(tmp_path / "run")

    def test_metrics_that_are_damaged(self, runs, tmp_path):
        shutil.copytree(runs / "unsup", tmp_path / "run", symlinks=True)
        with (tmp_path / "run" / "metrics.jsonl").open("a") as f:
            f.write('{"step": 7, "lo\n')
        before = (tmp_path / "run" / "report.html").read_text("utf-8")
        with pytest.raises(UserError, match=r"metrics.jsonl:\d+: damaged"):
            write_report(tmp_path / "run")
        assert (tmp_path / "run" / "report.html").read_text("utf-8") == before

    def test_a_preset_that_is_gone(self, runs, tmp_path):
        shutil.copytree(runs / "unsup", tmp_path / "run", symlinks=True)
        config = json.loads((tmp_path / "run" / "config.json").read_text("utf-8"))
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"preset": "./gone"}))
        with pytest.raises(UserError, match="./gone: no such directory"):
            write_report(tmp_path / "run")
