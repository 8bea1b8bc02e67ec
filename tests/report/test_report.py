"""`report.html` and `report.json` of small runs of the tiny BERT."""

import itertools
import json
import re
import shutil
import sys
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from simcse_tf import __version__, evaluate, train
from simcse_tf.errors import UserError
from simcse_tf.evaluation.development import Graded, Labelled, Triplets
from simcse_tf.evaluation.pairs import Pairs
from simcse_tf.evaluation.retrieval import Retrieval
from simcse_tf.report import page
from simcse_tf.report.conclusion import conclusion
from simcse_tf.report.report import _examples, _Judged, _made, _rests_on, write_report
from simcse_tf.runs import read
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def runs(tiny_preset, tmp_path_factory):
    """An unsupervised run (head in training only), and a supervised one (head kept) with a mix; both with reports."""
    root = tmp_path_factory.mktemp("runs")
    (root / "sentences.txt").write_text("".join(s + "\n" for s in SENTENCES), "utf-8")
    # Texts of their own for each row, so that rows can be held out.
    rows = [(f"{a} {i} !", f"{b} {i} ?") for i, (a, b) in enumerate(list(itertools.pairwise(SENTENCES)) * 8)]
    (root / "pairs.csv").write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows))
    common = ["--preset", str(tiny_preset), "--batch-size", "8", "--max-length", "12", "--max-steps", "6"]
    common += ["--eval-every", "2", "--learning-rate", "1e-3", "--export-to", "None", "--no-report"]
    of_sentences = ["--dev", "bundled", "--data", str(root / "sentences.txt"), "--output-dir", str(root / "unsup")]
    train.main(["unsup-bert-base", *common, *of_sentences])
    watched = "".join(f"{a},{b}\n" for a, b in [*rows[:20], (rows[0][0], "<i>seen</i> {twice} $")])
    (root / "watched.csv").write_text("a,b\n" + watched, "utf-8")
    of_pairs = ["--data", str(root / "pairs.csv"), "--keep", "0.5", "--output-dir", str(root / "sup <b>")]
    of_pairs += ["--watch", str(root / "watched.csv")]
    train.main(["sup-bert-base", *common, *of_pairs])
    for run in ("unsup", "sup <b>"):
        write_report(root / run)
    return root


def numbers(run):
    return json.loads((run / "report.json").read_text("utf-8"))


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_before_and_after_are_the_first_and_the_best_evaluation_of_training(runs):
    for name in ("unsup", "sup <b>"):
        report, run = numbers(runs / name), read(runs / name)
        # The supervised encoder begins with a random head: the same one has to come back.
        for each in run.development_sets:
            (change,) = (change for change in report["changes"] if change["name"] == each.name)
            for when, line in (("before", run.before), ("after", run.best)):
                own = report[when]["on"][each.name]["figures"]
                assert change[when] == own[each.headline]
                for figure, value in own.items():
                    assert value == pytest.approx(line[f"{each.name}/{figure}"], abs=1e-3)
        assert report["best_step"] == run.best["step"]
        assert report["steps"] == 6
        assert report["curves"]["evaluations"] == run.evaluations
        assert report["curves"]["mixes"] == run.mixes
        assert report["curves"]["loss"] == [[m["step"], m["loss"]] for m in run.metrics if "loss" in m]


def test_a_part_of_the_pairs_that_chose_nothing_is_what_the_conclusion_rests_on(runs):
    report = numbers(runs / "sup <b>")
    assert {each["name"]: each["role"] for each in report["changes"]} == {
        "held-out": "selects",
        "bundled": "tests",
        "held-out-test": "tests",
    }
    assert report["conclusion"]["rests_on"] == "held-out-test"
    rows = [json.loads(line) for line in (runs / "sup <b>" / "held_out_test.jsonl").read_text("utf-8").splitlines()]
    (test,) = (each for each in report["changes"] if each["name"] == "held-out-test")
    assert test["size"] == f"{len(rows)} queries, {len(rows)} documents"
    # Each query has one document.
    of_each = (report[when]["on"]["held-out-test"]["figures"]["recall@1"] for when in ("before", "after"))
    assert test["first_right"] == pytest.approx(list(of_each))
    examples = {each["name"]: each for each in report["examples"]}["held-out-test"]
    assert examples["items"] == len(rows)
    shown = [*examples["won"], *examples["lost"]]
    assert {item["query"] for item in shown} <= {row["anchor"] for row in rows}
    for item in shown:
        assert (item["rank_before"] == 1) == (item["first_before"] == item["document"])
        assert item["rank_before"] != item["rank_after"]


def test_the_interval_of_a_change_is_around_it(runs):
    for name in ("unsup", "sup <b>"):
        for each in numbers(runs / name)["changes"]:
            low, high = each["interval"]
            assert low <= each["after"] - each["before"] <= high


def test_close_pairs_and_random_ones_are_counted_in_the_same_bins(runs):
    found = numbers(runs / "sup <b>")["cosines"]
    assert found["set"] == "held-out-test"
    for when in ("before", "after"):
        assert len(found[when]["close"]) == len(found[when]["random"]) == len(found["bin_edges"]) - 1
        assert sum(found[when]["close"]) == 23
        assert 19_000 < sum(found[when]["random"]) <= 20_000
        assert 0 <= found[when]["told_apart"] <= 1


def test_the_watched_texts_move_over_the_evaluations(runs):
    run = runs / "sup <b>"
    found, parsed = numbers(run)["watched"], Page((run / "report.html").read_text("utf-8"))
    assert found["steps"] == [0, 2, 4, 6]
    (root,) = (attributes for _, attributes in parsed.tags if attributes.get("class") == "motion")
    data = json.loads(root["data-motion"])
    assert data["together"] == found["together"]
    assert np.shape(data["points"]) == (4, 41, 2)
    assert data["points"][0] != data["points"][3]
    dots = [attributes for tag, attributes in parsed.tags if tag == "circle" and "data-i" in attributes]
    assert [(float(dot["cx"]), float(dot["cy"])) for dot in dots] == [tuple(point) for point in data["points"][3]]
    assert dots[40]["data-t"] == "<i>seen</i> {twice} $"
    lines = [attributes for tag, attributes in parsed.tags if tag == "line" and "data-b" in attributes]
    assert [(line["data-a"], line["data-b"]) for line in lines[-2:]] == [("38", "39"), ("0", "40")]
    (slider,) = (attributes for tag, attributes in parsed.tags if tag == "input")
    assert (slider["min"], slider["max"]) == ("0", "3")


def test_the_report_says_when_by_which_command_and_where_the_run_was_trained(runs, html):
    made = numbers(runs / "unsup")["made"]
    assert made["commands"] == 1
    assert "simcse_tf.train unsup-bert-base --preset" in made["command"]
    assert "core" in made["machine"][0]
    assert f"simcse_tf {__version__}" in made["program"][0]
    last = [m["elapsed_seconds"] for m in metrics(runs / "unsup") if "dev" in m][-1]
    assert made["seconds"] == pytest.approx(last, abs=0.1)
    assert made["command"] in Page(html).text


class Page(HTMLParser):
    """Collects tags and text, and fails on tags that are not closed in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
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


def test_the_page_has_every_picture_and_the_numbers_of_the_json(runs):
    parsed = Page((runs / "sup <b>" / "report.html").read_text("utf-8"))
    pictures = [attributes["aria-label"] for tag, attributes in parsed.tags if tag == "svg" and "role" in attributes]
    assert pictures == [
        "Change of every set, with its interval",
        "nDCG@10 x 100 on held-out over steps",
        "Spearman x 100 on bundled over steps",
        "held-out, nDCG@10 x 100 against bundled, Spearman x 100",
        "Training loss over steps",
        "Development sets over the share of the starting weights",
        "Cosine similarity of pairs that belong together and of random pairs, before",
        "Cosine similarity of pairs that belong together and of random pairs, after",
        "Alignment and uniformity over the course of training",
        "41 texts where the encoder sees them",
    ]
    report = numbers(runs / "sup <b>")
    for when in ("before", "after"):
        for each in report["changes"]:
            assert f"{each[when]:.2f}".replace("-", "\N{MINUS SIGN}") in parsed.text
        uniformity = report[when]["on"]["bundled"]["figures"]["uniformity"]
        assert f"{uniformity:.4f}".replace("-", "\N{MINUS SIGN}") in parsed.text
    assert report["conclusion"]["text"] in parsed.text
    assert "0.5, chosen" in parsed.text
    assert "learning_rate" in parsed.text
    assert report["versions"]["report"]["tensorflow"] in parsed.text
    # What only those want who want to know more is closed.
    closed = [attributes for tag, attributes in parsed.tags if tag == "details" and "open" not in attributes]
    assert len(closed) >= 3


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


def change(name, low, high, role="tests", before=50.0, label="nDCG@10 x 100"):
    after = before + (low + high) / 2
    return {"name": name, "role": role, "label": label, "before": before, "after": after, "interval": [low, high]}


class TestConclusion:
    JUDGE = change("docs", 3.0, 9.0, role="selects")

    def test_a_gain_that_chose_nothing_is_a_gain(self):
        found = conclusion([self.JUDGE, change("test", 1.0, 5.0)], "test", unchanged=False)
        assert (found["verdict"], found["rests_on"]) == ("better", "test")
        assert "nDCG@10 on test rose by 3.00 points to 53.00 (95 % interval +1.00 to +5.00)" in found["text"]
        assert "docs rose by 6.00 points" in found["notes"][1]
        assert "optimistic" in found["notes"][0]

    def test_of_retrieval_it_says_how_many_first_answers_are_right(self):
        test = change("test", 1.0, 5.0) | {"first_right": [59.43, 72.86]}
        found = conclusion([self.JUDGE, test], "test", unchanged=False)
        assert "The first answer was right for 72.9 % of the queries; before training, for 59.4 %." in found["text"]

    def test_a_gain_inside_the_noise_is_called_that(self):
        found = conclusion([self.JUDGE, change("test", -1.0, 5.0)], "test", unchanged=False)
        assert (found["verdict"], found["title"]) == ("noise", "No difference shown.")
        assert (
            "changed by +2.00 points to 52.00 (95 % interval \N{MINUS SIGN}1.00 to +5.00), within the" in found["text"]
        )

    def test_a_loss_is_a_loss(self):
        assert conclusion([self.JUDGE, change("test", -5.0, -1.0)], "test", unchanged=False)["verdict"] == "worse"

    def test_a_gain_on_the_set_that_chose_is_optimistic_and_so_it_says(self):
        found = conclusion([self.JUDGE], None, unchanged=False)
        assert found["verdict"] == "optimistic"
        assert "no other set is there to confirm it" in found["notes"][0]

    def test_what_happened_to_general_pairs_is_said_too(self):
        general = change("bundled", -1.0, 0.5, label="Spearman x 100")
        found = conclusion([self.JUDGE, general, change("test", 1.0, 5.0)], "test", unchanged=False)
        assert "In general: Spearman on bundled changed by \N{MINUS SIGN}0.25 points" in found["notes"][-1]

    def test_a_run_that_never_improved_says_so(self):
        found = conclusion([change("docs", 0.0, 0.0, role="selects")], None, unchanged=True)
        assert found["verdict"] == "unchanged"
        assert "Nothing did better on docs than the encoder that training began with" in found["text"]
        found = conclusion([change("docs", 0.0, 0.0, role="selects")], None, unchanged=True, given_up=True)
        assert found["verdict"] == "unchanged"
        assert "A step did better on docs, but" in found["text"]

    def test_the_set_that_says_most_about_the_domain_comes_first(self):
        given = SimpleNamespace(on=[SimpleNamespace(name="mine")], pairs=[SimpleNamespace(name="STS12")])
        roles = {"docs": "selects", "bundled": "tests", "mine": "tests", "STS12": "tests"}
        assert _rests_on(roles | {"held-out-test": "tests"}, given) == "held-out-test"
        assert _rests_on(roles, given) == "mine"
        nothing = SimpleNamespace(on=[], pairs=[])
        # General pairs say nothing of the domain by which the step was chosen.
        assert _rests_on({"docs": "selects", "bundled": "tests", "STS12": "tests"}, nothing) is None
        assert _rests_on({"STSB-dev": "selects", "bundled": "tests"}, nothing) == "bundled"
        assert _rests_on({"STSB-dev": "selects", "bundled": "tests", "STSB-test": "tests"}, nothing) == "STSB-test"
        assert _rests_on({"docs": "selects", "bundled": "guards"}, nothing) is None


TEXTS = ["one", "two <b>", "x" * 400]
PAIRS = Pairs("mine", TEXTS, TEXTS[::-1], np.array([0.0, 2.0, 5.0]), {}, "here")
EXAMPLES = {
    "graded": (
        Graded.of(PAIRS),
        np.array([0.9, 0.5, 0.1]),
        np.array([0.1, 0.5, 0.9]),
        {"a": "one", "b": "x" * 300 + "…", "grade": 0.0, "before": 0.9, "after": 0.1},
        "grade 0; cosine <b class='before'>0.900</b>",
    ),
    "labelled": (
        Labelled("mine", "here", TEXTS, TEXTS, [0, 0, 1]),
        np.array([0.9, 0.5, 0.1]),
        np.array([0.1, 0.5, 0.9]),
        {"a": "one", "b": "one", "label": 0, "before": 0.9, "after": 0.1},
        "label 0; cosine",
    ),
    "triplets": (
        Triplets("mine", "here", TEXTS, TEXTS, TEXTS[::-1]),
        np.array([[0.2, 0.4], [0.5, 0.5], [0.5, 0.5]]),
        np.array([[0.6, 0.3], [0.5, 0.5], [0.5, 0.5]]),
        {"anchor": "one", "positive": "one", "negative": "x" * 300 + "…", "before": [0.2, 0.4], "after": [0.6, 0.3]},
        "positive, cosine <b class='before'>0.200</b> → <b class='after'>0.600</b>",
    ),
    "retrieval": (
        Retrieval("mine", "here", TEXTS, TEXTS, [{0: 1.0, 1: 2.0}, {1: 1.0}, {2: 1.0}]),
        np.array([[2, -1, -1], [1, 0, 2], [2, 0, 1]]),
        np.array([[2, 1, 0], [1, 0, 2], [2, 0, 1]]),
        {"query": "one", "document": "two <b>", "rank_before": None, "rank_after": 2}
        | {"first_before": "x" * 300 + "…", "first_after": "x" * 300 + "…"},
        "Its document: two &lt;b&gt;<br>Rank <b class='before'>beyond 10</b> → <b class='after'>2</b>",
    ),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_what_was_won_most_is_shown_with_its_answers(kind):
    each, before, after, expected, shown = EXAMPLES[kind]
    found = _examples(_Judged(each, "tests", ({}, {}), (before, after)))
    assert found["won"][0] == expected
    assert found["lost"] == []
    numbers = {"examples": [found], "conclusion": {"rests_on": "mine"}}
    assert shown in page._examples(numbers)
    assert "<details open>" in page._examples(numbers)
    # The other way round it was lost.
    back = _examples(_Judged(each, "tests", ({}, {}), (after, before)))
    assert (len(back["lost"]), back["won"], back["worse"]) == (len(found["won"]), [], found["better"])


def test_only_a_change_whose_interval_excludes_0_has_a_colour(runs):
    report = numbers(runs / "unsup")
    for interval, kind in (([0.5, 2.0], "better"), ([-0.5, 2.0], ""), ([-2.0, -0.5], "worse")):
        report["changes"][0]["interval"] = interval
        assert f"<td class='n {kind}'>" in page._changes(report)


def test_a_run_of_0_1_0_which_logged_less_is_shown_too(runs):
    report = numbers(runs / "unsup") | {"made": {}}
    report["curves"]["evaluations"] = [
        {name: value for name, value in line.items() if "/" not in name} for line in report["curves"]["evaluations"]
    ]
    shown = page.page(report)
    assert "Spearman x 100 on bundled over steps" in shown
    # Of the two ends there are figures.
    assert "Alignment and uniformity over the course of training" in shown
    assert _made(SimpleNamespace(commands=[])) == {}


def test_long_curves_are_averaged_in_groups():
    from simcse_tf.report.report import _thinned

    thin = _thinned([(step, float(step % 2)) for step in range(1, 5001)])
    assert len(thin) == 1000
    assert thin[0] == [5, 0.6]
    assert thin[-1][0] == 5000
    assert _thinned([]) == []


def test_a_missing_extra_is_named_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"the report needs .*simcse-tf\[report\]"):
        write_report(tmp_path / "nowhere")


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
