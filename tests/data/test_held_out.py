"""What is held out of training: whole groups of rows that share a text, the same for every seed."""

import itertools
import json

import pytest

from simcse_tf import runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.data.held_out import hold_out
from simcse_tf.data.sources import open_source, scan
from simcse_tf.errors import UserError
from simcse_tf.training.checkpoint import RunDirectory
from simcse_tf.training.plan import find_development_sets, plan


@pytest.fixture
def pairs(tmp_path):
    """400 pairs in 200 groups: each anchor twice, and now and then written in another way."""
    path = tmp_path / "pairs.csv"
    rows = [(f"anchor {i // 2}" if i % 3 else f"ANCHOR  {i // 2}", f"positive {i}") for i in range(400)]
    path.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in rows), "utf-8")
    return path


def split(path, batch_size=8):
    return hold_out(open_source(str(path)), skip_bad_rows=False, batch_size=batch_size)


def texts(rows):
    return {" ".join(text.casefold().split()) for row in rows for text in row}


def test_no_text_is_on_both_sides_and_every_row_is_on_one(pairs):
    held = split(pairs)
    training = list(held.training.rows())
    assert (len(held.rows), held.total, held.problem) == (40, 400, "")
    assert texts(held.rows).isdisjoint(texts(training))
    assert sorted([*held.rows, *training]) == sorted(open_source(str(pairs)).rows())
    assert scan(held.training).rows == 360


def test_of_enough_groups_half_are_for_a_test_that_selects_nothing(tmp_path):
    path = tmp_path / "pairs.csv"
    # Groups of one and two rows.
    rows = [(f"anchor {i - i % 5 // 4}", f"positive {i}") for i in range(600)]
    path.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in rows), "utf-8")
    held = split(path)
    training = list(held.training.rows())
    assert (len(held.rows), len(held.test), len(training)) == (30, 30, 540)
    assert sorted([*held.rows, *held.test, *training]) == sorted(rows)
    sides = [texts(side) for side in (held.rows, held.test, training)]
    for one, other in itertools.combinations(sides, 2):
        assert one.isdisjoint(other)


def test_some_of_all_rows_are_chosen_and_not_the_first(pairs):
    places = [int(row[1].split()[1]) for row in split(pairs).rows]
    assert places == sorted(places)
    assert places[0] < 200 < places[-1]


def test_rows_with_several_hard_negatives_are_held_out_whole(tmp_path):
    path = tmp_path / "mined.csv"
    # A hard negative of each row is the positive of its neighbour.
    rows = [(f"a{i}", f"p{i}", f"n{i}", f"p{i ^ 1}") for i in range(400)]
    path.write_text("anchor,positive,negative_1,negative_2\n" + "".join(",".join(row) + "\n" for row in rows), "utf-8")
    held = split(path)
    assert len(held.rows) == 40
    assert set(held.rows) <= set(rows)
    assert texts(held.rows).isdisjoint(texts(held.training.rows()))
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.write_held_out(held)
    kept = [json.loads(line) for line in (run.path / runs.HELD_OUT).read_text("utf-8").splitlines()]
    assert [tuple(row.values()) for row in kept] == held.rows
    assert list(kept[0]) == ["anchor", "positive", "negative_1", "negative_2"]
    assert runs.read_held_out(run.path) == held.rows
    (judge,) = find_development_sets(TrainConfig(dev=("held-out",)), held.rows)
    assert judge.documents[:40] == [row[1] for row in held.rows]
    assert set(judge.documents[40:]) == {text for row in held.rows for text in row[2:]} - set(judge.documents[:40])


def test_rows_are_connected_through_others(tmp_path):
    path = tmp_path / "triplets.csv"
    # A chain: each row has a text of the next, the first and the last have none in common.
    chain = [(f"a{i}", f"a{i + 1}", f"n{i}") for i in range(100)]
    others = [(f"x{i}", f"y{i}", f"z{i}") for i in range(300)]
    mixed = [*others[:150], *chain, *others[150:]]
    path.write_text("anchor,positive,negative\n" + "".join(",".join(row) + "\n" for row in mixed), "utf-8")
    held = split(path)
    assert (len(held.rows), len(held.test)) == (20, 20)
    assert not {*held.rows, *held.test} & set(chain)


@pytest.mark.parametrize(
    ("rows", "batch_size", "problem"),
    [
        ([(f"a{i}", f"b{i}") for i in range(100)], 8, "100 rows are too few"),
        ([(f"a{i}", f"b{i}") for i in range(300)], 280, "300 rows are too few"),
        ([("a", f"b{i}") for i in range(300)], 8, "connected by texts"),
        (list(itertools.pairwise(f"a{i}" for i in range(301))), 8, "connected by texts"),
        # Enough rows, in one group that has one document: whatever the encoder, every query would find it.
        ([(f"a{i}", f"b{i % 10}") for i in range(250)], 8, "connected by texts"),
    ],
)
def test_where_nothing_can_be_held_out_all_rows_are_trained_on(tmp_path, rows, batch_size, problem):
    path = tmp_path / "pairs.csv"
    path.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in rows), "utf-8")
    held = split(path, batch_size=batch_size)
    assert problem in held.problem
    assert held.rows == []
    assert list(held.training.rows()) == rows


class TestPlan:
    def parse(self, path, tmp_path, *flags):
        return train.parse(["--data", str(path), "--output-dir", str(tmp_path / "run"), *flags])

    def test_pairs_without_a_development_set_are_judged_by_a_part_of_them(self, pairs, tmp_path, tiny_preset):
        found = plan(self.parse(pairs, tmp_path, "--preset", str(tiny_preset)))
        assert [each.name for each in found.development_sets] == ["held-out", "bundled"]
        judge = found.development_sets[0]
        assert judge.kind == "retrieval"
        assert {*judge.queries, *judge.documents} == {text for row in found.held_out.rows for text in row}
        assert found.scan.rows == 360

    @pytest.mark.parametrize("flags", [["--dev", "bundled"], ["--dev=bundled"], ["--sts-dir", "x"]])
    def test_a_development_set_that_is_named_holds_nothing_out(self, pairs, tmp_path, flags):
        assert self.parse(pairs, tmp_path, *flags).dev == ("bundled",)

    def test_sentences_are_judged_as_the_recipe_says(self, sentences_file, tmp_path):
        assert self.parse(sentences_file, tmp_path).dev == ("bundled",)
        assert train.parse(["sup-bert-base"]).dev == ("tfds:glue/stsb",)

    @pytest.mark.parametrize("name", ["bundled:triplets", "nli_for_simcse", "tfds:snli+multi_nli"])
    def test_data_that_is_named_is_judged_as_the_recipe_says(self, name, tmp_path):
        assert self.parse(name, tmp_path).dev == ("bundled",)

    def test_a_run_that_was_started_without_is_resumed_without(self, pairs, tmp_path):
        (tmp_path / "run").mkdir()
        config = json.loads(self.parse(pairs, tmp_path).to_json())
        # As version 0.1.0 wrote it.
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"dev": "bundled"}), "utf-8")
        assert self.parse(pairs, tmp_path, "--resume").dev == ("bundled",)
        assert self.parse(pairs, tmp_path, "--overwrite").dev == ("held-out", "bundled")
        # The run says with what it was started: the check of the directory refuses other settings.
        (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"dev": ["mine.csv"]}), "utf-8")
        assert self.parse(pairs, tmp_path, "--resume").dev == ("held-out", "bundled")

    def test_too_few_rows_leave_the_bundled_pairs_unless_nothing_else_is_asked_for(
        self, triplets_file, tmp_path, tiny_preset
    ):
        flags = ["--preset", str(tiny_preset), "--batch-size", "8"]
        found = plan(self.parse(triplets_file, tmp_path, *flags))
        assert [each.name for each in found.development_sets] == ["bundled"]
        assert found.held_out.problem == "20 rows are too few"
        with pytest.raises(UserError, match="`dev` held-out: no part of .* 20 rows are too few"):
            plan(self.parse(triplets_file, tmp_path, *flags, "--dev", "held-out"))

    def test_runs_that_differ_in_their_seed_are_judged_by_the_same_rows(self, pairs, tmp_path, tiny_preset):
        flags = ["--preset", str(tiny_preset), "--batch-size", "8"]
        one, other = (plan(self.parse(pairs, tmp_path, *flags, "--seed", seed)).held_out.rows for seed in "12")
        assert one == other

    def test_sentences_cannot_be_held_out(self, sentences_file, tmp_path, tiny_preset):
        flags = ["--preset", str(tiny_preset), "--batch-size", "8", "--dev", "held-out"]
        with pytest.raises(UserError, match="`dev` held-out: .* has single sentences"):
            plan(self.parse(sentences_file, tmp_path, *flags))

    @pytest.mark.parametrize(
        ("header", "flags"), [("text,label", []), ("sentence1,sentence2,score", ["--loss", "cosent"])]
    )
    def test_classes_and_graded_pairs_are_judged_as_the_recipe_says(self, tmp_path, tiny_preset, header, flags):
        path = tmp_path / "data.csv"
        path.write_text(f"{header}\n" + "".join(f"{'a,' * header.count(',')}{i % 2}\n" for i in range(400)), "utf-8")
        flags = ["--preset", str(tiny_preset), *flags]
        assert self.parse(path, tmp_path, *flags).dev == ("bundled",)
        with pytest.raises(UserError, match="`dev` held-out: .* has (label|score)s"):
            plan(self.parse(path, tmp_path, *flags, "--dev", "held-out"))
