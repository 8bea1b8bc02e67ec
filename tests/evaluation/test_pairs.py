"""Reading graded pairs: every format read back, every kind of damage named with file and line."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.evaluation import development_files, sts

from .layout import replace_line, write_task


@pytest.fixture
def dev(tmp_path):
    write_task(tmp_path, "STSB-dev")
    return tmp_path / "STS/STSBenchmark/sts-dev.csv"


def test_the_tasks_are_the_papers_with_their_published_sizes():
    assert {name: task.pairs for name, task in sts.TASKS.items()} == {
        "STS12": 3108,
        "STS13": 1500,
        "STS14": 3750,
        "STS15": 3000,
        "STS16": 1186,
        "STSB-dev": 1500,
        "STSB-test": 1379,
        "SICK-R": 4927,
    }
    assert "SMT" not in sts.TASKS["STS13"].subsets


@pytest.mark.parametrize("task", sts.TASKS)
def test_every_task_is_read_back_from_sentevals_layout(tmp_path, task):
    content = write_task(tmp_path, task, blanks=3 if task[:5] in ("STS15", "STS16") else 0)
    pairs = sts.load(task, tmp_path)
    assert pairs.name == task
    assert pairs.source == str(tmp_path / sts.TASKS[task].folder)
    assert list(pairs.subsets) == list(content)
    for subset, (a, b, gold) in content.items():
        at = pairs.subsets[subset]
        assert (pairs.a[at], pairs.b[at]) == (a, b)
        np.testing.assert_array_equal(pairs.gold[at], gold)
    assert len(pairs.gold) == sts.TASKS[task].pairs


def test_available_lists_found_and_missing_tasks(tmp_path):
    for task in ("STSB-test", "STS16"):
        write_task(tmp_path, task)
    found, missing = sts.available(tmp_path)
    assert found == ["STS16", "STSB-test"]
    assert missing == ["STS12", "STS13", "STS14", "STS15", "STSB-dev", "SICK-R"]
    assert sts.available(tmp_path, ["STSB-test", "STSB-dev"]) == (["STSB-test"], ["STSB-dev"])


def test_a_task_with_one_file_lacking_is_found_and_loading_names_the_file(tmp_path):
    write_task(tmp_path, "STS12")
    lacking = tmp_path / "STS/STS12-en-test/STS.gs.MSRvid.txt"
    lacking.unlink()
    assert sts.available(tmp_path, ["STS12"]) == (["STS12"], [])
    with pytest.raises(UserError, match=rf"{lacking}: not found, and STS12 needs it"):
        sts.load("STS12", tmp_path)


def test_an_unknown_task_and_a_missing_directory_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"unknown STS task 'STSB-devv'. Did you mean 'STSB-dev'"):
        sts.available(tmp_path, ["STSB-devv"])
    with pytest.raises(UserError, match="unknown STS task 'sts12'"):
        sts.load("sts12", tmp_path)
    with pytest.raises(UserError, match="nowhere: no such directory"):
        sts.available(tmp_path / "nowhere")


def test_a_truncated_file_names_itself_and_the_counts(dev, tmp_path):
    dev.write_text("\n".join(dev.read_text("utf-8").split("\n")[:1200]) + "\n", "utf-8")
    with pytest.raises(UserError, match=rf"{dev}: 1200 scored pairs, but STSB-dev has 1500 here"):
        sts.load("STSB-dev", tmp_path)


def test_a_file_cut_in_the_middle_of_a_line_names_the_line(dev, tmp_path):
    text = dev.read_text("utf-8")
    dev.write_text(text[: text.index("\t0700\t") + 8], "utf-8")
    with pytest.raises(UserError, match=rf"{dev}:701: 5 tab-separated column\(s\), expected 7"):
        sts.load("STSB-dev", tmp_path)


def test_too_many_pairs_are_refused_as_well(dev, tmp_path):
    dev.write_text(dev.read_text("utf-8") + "main\tall\tx\t1\t3.0\ta\tb\n", "utf-8")
    with pytest.raises(UserError, match="1501 scored pairs, but STSB-dev has 1500"):
        sts.load("STSB-dev", tmp_path)


def test_a_gold_file_with_another_number_of_lines_names_both_files(tmp_path):
    write_task(tmp_path, "STS12")
    gold = tmp_path / "STS/STS12-en-test/STS.gs.SMTeuroparl.txt"
    gold.write_text(gold.read_text("utf-8") + "3.0\n", "utf-8")
    with pytest.raises(UserError, match=rf"{gold}: 460 lines, but STS.input.SMTeuroparl.txt beside it has 459"):
        sts.load("STS12", tmp_path)


@pytest.mark.parametrize(
    ("grade", "message"),
    [("5.2", "out of range"), ("-0.1", "out of range"), ("nan", "out of range"), ("good", "not a number")],
)
def test_a_wrong_score_names_file_and_line(dev, tmp_path, grade, message):
    replace_line(dev, 17, f"main\tall\tx\t16\t{grade}\tone\ttwo")
    with pytest.raises(UserError, match=rf"{dev}:17: the score '?{grade}'? is {message}. Expected 0 to 5"):
        sts.load("STSB-dev", tmp_path)


def test_sicks_scale_starts_at_one(tmp_path):
    write_task(tmp_path, "SICK-R")
    path = tmp_path / "SICK/SICK_test_annotated.txt"
    replace_line(path, 9, "8\tone\ttwo\t0.5\tNEUTRAL")
    with pytest.raises(UserError, match=rf"{path}:9: the score 0.5 is out of range. Expected 1 to 5"):
        sts.load("SICK-R", tmp_path)


def test_a_wrong_score_in_a_semeval_set_names_the_gold_file_and_line(tmp_path):
    write_task(tmp_path, "STS16")
    gold = tmp_path / "STS/STS16-en-test/STS.gs.headlines.txt"
    replace_line(gold, 4, "6.0")
    with pytest.raises(UserError, match=rf"{gold}:4: the score 6.0 is out of range"):
        sts.load("STS16", tmp_path)


def test_a_semeval_line_without_two_sentences_names_the_input_file_and_line(tmp_path):
    write_task(tmp_path, "STS16")
    inputs = tmp_path / "STS/STS16-en-test/STS.input.headlines.txt"
    replace_line(inputs, 4, "only one sentence")
    with pytest.raises(UserError, match=rf"{inputs}:4: 1 tab-separated column"):
        sts.load("STS16", tmp_path)


def test_bytes_that_are_not_utf8_name_file_and_line(dev, tmp_path):
    lines = dev.read_bytes().split(b"\n")
    lines[4] = b"main\tall\tx\t4\t3.0\tcaf\xe9\tbar"
    dev.write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=rf"{dev}:5: not utf-8"):
        sts.load("STSB-dev", tmp_path)


def test_a_file_with_another_header_is_refused(tmp_path):
    write_task(tmp_path, "SICK-R")
    path = tmp_path / "SICK/SICK_test_annotated.txt"
    replace_line(path, 1, "pair_ID\tsentence_A\tsentence_B\tscore\tx")
    with pytest.raises(UserError, match=rf"{path}:1: the header has no column 'relatedness_score'"):
        sts.load("SICK-R", tmp_path)


def test_quotes_rare_line_separators_windows_line_ends_and_extra_columns_do_not_shift_anything(dev, tmp_path):
    replace_line(dev, 2, 'main\tall\tx\t1\t2.5\t"unclosed\u2028quote \x85 here\tother  side\tlicence\tnote\r')
    pairs = sts.load("STSB-dev", tmp_path)
    assert len(pairs.gold) == 1500
    assert pairs.gold[1] == 2.5
    assert (pairs.a[1], pairs.b[1]) == ('"unclosed quote here', "other side")


def test_our_own_pairs_are_read_and_errors_name_the_line(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("score\tsentence1\tsentence2\n5.0\tA  cat.\tOne cat.\n0.2\tA dog.\tRain\n", "utf-8")
    pairs = sts.read_pairs(path, "mine")
    assert (pairs.name, pairs.a, pairs.b) == ("mine", ["A cat.", "A dog."], ["One cat.", "Rain"])
    np.testing.assert_array_equal(pairs.gold, [5, 0.2])
    assert sts.read_pairs(path).name == "pairs"
    replace_line(path, 3, "0.2\tA dog.")
    with pytest.raises(UserError, match=rf"{path}:3: 2 tab-separated column"):
        sts.read_pairs(path, "mine")
    for text in ("", "score\tsentence1\tsentence2\n"):
        path.write_text(text, "utf-8")
        with pytest.raises(UserError, match=str(path)):
            sts.read_pairs(path, "mine")


def test_the_bundled_pairs_fill_every_grade():
    pairs = sts.bundled()
    assert pairs.name == "bundled"
    assert len(pairs.gold) >= 300
    assert all(np.sum(np.round(pairs.gold) == grade) >= 20 for grade in range(6))


def test_the_development_set_comes_from_tfds_as_its_own_writer_stored_it(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder("glue/stsb", data_dir=tmp_path)
    (tmp_path / "glue/stsb/2.0.0").mkdir(parents=True)
    rows = [("A plane is taking off.", "An air plane takes off.", 4.2), ("Café ☕", "Rain", 0.0), ("x", "y", 5.0)]
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=10)
    writer.initialize_splits(["validation"])
    writer.add_examples(
        {"validation": [{"sentence1": a, "sentence2": b, "label": s, "idx": i} for i, (a, b, s) in enumerate(rows)]}
    )
    writer.close_all()
    pairs = sts.from_tfds(tmp_path)
    assert pairs.name == "STSB-dev"
    assert sorted(zip(pairs.a, pairs.b, pairs.gold.tolist(), strict=True)) == sorted(rows)


def test_a_development_set_that_needs_a_missing_extra_names_it_without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"`dev` tfds:glue/stsb needs .*simcse-tf\[tfds\]"):
        development_files.find(["tfds:glue/stsb"])
    assert [each.name for each in development_files.find(["bundled"])] == ["bundled"]


def test_tfds_without_data_and_without_a_network_is_an_error_in_seconds(tmp_path, no_network):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(UserError, match=r"glue/stsb is not in .* and cannot be downloaded: .*`sts_dir`"):
        sts.from_tfds(tmp_path)
    assert not list(tmp_path.iterdir())
