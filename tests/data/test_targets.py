"""Labels and scores beside texts: what is read, what is drawn of it, and what is named with file and line."""

import json
from collections import Counter, defaultdict

import pytest

from simcse_tf.config import TrainConfig
from simcse_tf.data.sources import Scan, open_source, scan
from simcse_tf.data.targets import draw_pairs
from simcse_tf.errors import UserError
from simcse_tf.training import plan

# 30 texts in 3 classes, sorted by class; one text occurs twice.
CLASSES = [(f"text {i} of {label}", label) for label in ("news", "sport", "7") for i in range(10)]
CLASSES.append(CLASSES[0])


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def to(name, content):
        (tmp_path / name).write_text(content, "utf-8")
        return name

    return to


def table(header, rows):
    return f"{header}\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)


def complaint(spec, *, skip_bad_rows=False, **options):
    with pytest.raises(UserError) as caught:
        scan(open_source(spec, **options), skip_bad_rows=skip_bad_rows)
    return str(caught.value)


class TestClasses:
    @pytest.mark.parametrize(
        ("name", "header", "columns"),
        [
            ("a.csv", "text,label", ()),
            ("a.csv", "sentence,class", ()),
            ("a.csv", "utterance,label", ()),
            ("a.csv", "utterance,intent", ("utterance", "label:intent")),
            ("a.csv", "summary,class", ("class", "summary")),
        ],
    )
    def test_a_text_and_a_label_are_recognised(self, write, name, header, columns):
        source = open_source(write(name, table(header, CLASSES)), columns=columns)
        assert (source.views, source.target, source.columns) == (2, "label", tuple(header.split(",")))
        numbers = {"news": 0, "sport": 1, "7": 2}
        assert list(source.stored()) == [(text, numbers[label]) for text, label in CLASSES]
        assert scan(source).rows == 31

    def test_in_json_a_label_may_be_a_number(self, write):
        lines = [{"text": text, "label": int(label) if label.isdigit() else label} for text, label in CLASSES]
        spec = write("a.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        tabular = open_source(write("a.csv", table("text,label", CLASSES)))
        assert list(open_source(spec).stored()) == list(tabular.stored())

    def test_every_text_is_an_anchor_once_an_epoch_with_a_different_text_of_its_class(self, write):
        source = open_source(write("a.csv", table("text,label", CLASSES)))
        for epoch in range(3):
            rows = list(source.rows(seed=5, epoch=epoch))
            assert Counter(anchor for anchor, *_ in rows) == Counter(text for text, _ in CLASSES)
            for anchor, positive, label in rows:
                assert anchor != positive
                assert anchor.split()[-1] == positive.split()[-1] == ("news", "sport", "7")[label]

    def test_seed_and_epoch_decide_order_and_positives(self, write):
        source = open_source(write("a.csv", table("text,label", CLASSES)))
        drawn = {(seed, epoch): tuple(source.rows(seed=seed, epoch=epoch)) for seed in (1, 2) for epoch in (0, 1)}
        assert len(set(drawn.values())) == 4
        assert tuple(source.rows(seed=1, epoch=1)) == drawn[1, 1]

    def test_positives_are_drawn_evenly_from_the_other_texts(self):
        rows = [(text, 0) for text in "abcde"]
        counts = defaultdict(Counter)
        for epoch in range(2000):
            for anchor, positive, _ in draw_pairs(rows, 3, epoch):
                counts[anchor][positive] += 1
        for anchor, found in counts.items():
            assert set(found) == set("abcde") - {anchor}
            assert all(abs(count - 500) < 5 * 500**0.5 for count in found.values())

    def test_a_file_sorted_by_class_is_mixed(self, write):
        rows = [(f"{label} {i}", label) for label in "ab" for i in range(500)]
        source = open_source(write("a.csv", table("text,label", rows)))
        labels = [label for *_, label in source.rows(seed=1)]
        assert all(0 < sum(labels[i : i + 50]) < 50 for i in range(0, 1000, 50))

    def test_a_class_with_one_text_is_a_bad_row(self, write):
        rows = [*CLASSES[:12], ("alone", "rare"), *CLASSES[12:], ("twice", "equal"), ("twice", "equal")]
        spec = write("a.csv", table("text,label", rows))
        message = complaint(spec)
        assert message.startswith("a.csv:14: no different text has the label 'rare', so no positive; the row starts")
        assert "`skip_bad_rows`" in message
        found = scan(open_source(spec), skip_bad_rows=True)
        assert found == Scan(31, 3, True, message.partition(". Correct")[0])

    @pytest.mark.parametrize(
        ("rows", "facts"),
        [
            # An index, taken for a label.
            ([(f"text {i}", i) for i in range(10_000)], ["10,000 different values in 10,000 rows", "0 with two"]),
            ([(f"text {i}", "x") for i in range(10)], ["1 different value in 10 rows", "1 with two"]),
            ([("a", "x"), ("b", "x"), ("c", "y"), ("c", "y")], ["2 different values in 4 rows", "1 with two"]),
        ],
    )
    @pytest.mark.parametrize("skip_bad_rows", [False, True])
    def test_labels_that_are_no_classes_are_named_with_the_first_row(self, write, rows, facts, skip_bad_rows):
        message = complaint(write("a.csv", table("text,label", rows)), skip_bad_rows=skip_bad_rows)
        assert message.startswith("a.csv:2: ")
        for fact in (*facts, "'label'", "`columns` text"):
            assert fact in message

    @pytest.mark.parametrize(
        ("name", "row", "problem"),
        [
            ("a.csv", "a text, ", "'label' is empty"),
            ("a.csv", ",news", "'text' is empty"),
            ("a.jsonl", '{"text": "a"}', "no 'label'"),
            ("a.jsonl", '{"text": "a", "label": null}', "'label' is null"),
            ("a.jsonl", '{"text": "a", "label": 1.5}', "'label' is 1.5"),
        ],
    )
    def test_a_bad_label_names_file_and_line(self, write, name, row, problem):
        good = (
            table("text,label", CLASSES)
            if name == "a.csv"
            else "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in CLASSES)
        )
        message = complaint(write(name, f"{good}{row}\n"))
        assert message.startswith(f"{name}:{good.count(chr(10)) + 1}: ")
        assert problem in message

    def test_a_column_that_is_no_label_can_be_left_out(self, write):
        source = open_source(write("a.csv", table("text,label", [("a", 1), ("b", 2)])), columns=("text",))
        assert (source.target, list(source.rows())) == (None, [("a",), ("b",)])


class TestScores:
    @pytest.mark.parametrize(
        ("header", "columns"),
        [
            ("sentence1,sentence2,score", ()),
            ("score,text1,text2", ()),
            ("anchor,positive,grade,id", ()),
            ("question,answer,label", ()),
            ("x,y,score", ()),
            ("id,x,y,similarity", ("x", "y", "score:similarity")),
        ],
    )
    def test_two_texts_and_a_number_are_graded_pairs(self, write, header, columns):
        names = header.split(",")
        row = ["-2.5" if name in ("score", "grade", "label", "similarity") else name for name in names]
        source = open_source(write("a.csv", table(header, [row])), columns=columns)
        assert (source.views, source.target) == (2, "score")
        texts = [name for name, cell in zip(names, row, strict=True) if name == cell != "id"]
        assert list(source.rows()) == [(*texts, -2.5)]
        assert source.columns[:2] == tuple(texts)

    @pytest.mark.parametrize("score", ['"high"', "null", "NaN", "1e999", "[1]"])
    def test_a_score_that_is_no_number_names_file_and_line(self, write, score):
        lines = [f'{{"sentence1": "a", "sentence2": "b", "score": {value}}}\n' for value in ("1", score)]
        assert complaint(write("a.jsonl", "".join(lines))).startswith("a.jsonl:2: 'score' is ")

    def test_rows_that_differ_in_their_scores_have_other_fingerprints(self, write):
        files = [write(f"{score}.csv", table("text1,text2,score", [("a", "b", score)])) for score in (1, 2)]
        scans = [scan(open_source(file)) for file in files]
        assert scans[0] == scans[1]
        assert scans[0].fingerprint != scans[1].fingerprint


@pytest.mark.parametrize(
    ("header", "settings", "facts"),
    [
        ("text1,text2,score", {}, ["`loss` infonce has no use for scores", "`loss` cosent", "`columns` text1 text2"]),
        ("text1,text2,score", {"loss": "triplet"}, ["`loss` triplet has no use for scores"]),
        ("text", {"loss": "cosent"}, ["`loss` cosent needs two texts and a score", "1 text column and no score"]),
        ("anchor,positive,negative", {"loss": "cosent"}, ["3 text columns and no score"]),
        ("text,label", {"loss": "cosent"}, ["has texts with labels"]),
        ("text,label", {"loss": "triplet"}, ["`loss` triplet needs", "texts with labels and no hard negatives"]),
        ("text,label", {"hard_negative_weight": 1.0}, ["`hard_negative_weight` 1", "no hard negatives"]),
    ],
)
def test_a_loss_that_the_rows_are_not_for_is_refused(write, header, settings, facts):
    data = write("a.csv", table(header, []))
    config = TrainConfig(data=data, **settings)
    with pytest.raises(UserError) as caught:
        plan._check_objective(config, open_source(data))
    for fact in facts:
        assert fact in str(caught.value)
