"""`python -m simcse_tf.paraphrases`, with a stub for a model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from simcse_tf import paraphrases
from simcse_tf.data import sources
from simcse_tf.data.sources import open_source
from simcse_tf.errors import UserError
from simcse_tf.serving import paraphrases as finding
from simcse_tf.serving import vectors
from tests.test_deduplicate import Stub
from tests.test_mine import Killed, hidden

LINES = ["aaab", "ffg", "AAAB", "aaaab", "", "aab", "gff", "jjj"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in `tmp_path`; returns the rows of the output and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vectors, "_CALLS", 1)

    def run(content, *flags, name="in.txt", to="out.csv", model=None, killed=False):
        Path(name).write_text(content, "utf-8")
        monkeypatch.setattr(paraphrases.loading, "locate", lambda name: lambda: model or Stub())
        arguments = [name, "--model", "some/model", "--to", to, "--batch-size", "2", *map(str, flags)]
        if killed:
            with pytest.raises(Killed):
                paraphrases.main(arguments)
            return None
        paraphrases.main(arguments)
        return read(to), json.loads(capsys.readouterr().out or "{}")

    return run


def read(name):
    if name.endswith(".jsonl"):
        return [json.loads(line) for line in Path(name).read_text("utf-8").splitlines()]
    with open(name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t" if name.endswith(".tsv") else ","))


def test_pairs_are_written_best_first_with_their_rows_and_texts(run):
    pairs, result = run("\n".join(LINES), "--threshold", 0.98)
    assert [(pair["row1"], pair["row2"]) for pair in pairs] == [
        ("0", "2"),
        ("1", "5"),
        ("0", "3"),
        ("0", "4"),
    ]
    assert (pairs[0]["score"], pairs[0]["text1"], pairs[0]["text2"]) == ("1.0", "aaab", "AAAB")
    assert pairs[3]["score"] == "0.9899"
    assert (result["rows"], result["distinct"], result["pairs"], result["equal"]) == (7, 6, 4, 1)
    assert result["least"][-1]["text2"] == "aab"
    assert hidden() == []


def test_the_pairs_are_graded_pairs_that_training_reads(run):
    pairs, _ = run("\n".join(LINES), "--threshold", 0.98)
    source = open_source("out.csv")
    assert source.target == "score"
    assert [row[:2] for row in source.rows()] == [(pair["text1"], pair["text2"]) for pair in pairs]


def test_communities_have_all_rows_and_their_centre_first(run):
    _, result = run("\n".join([*LINES, "JJJ"]), "--threshold", 0.98, "--communities", "groups.jsonl")
    groups = read("groups.jsonl")
    assert [(row["community"], row["row"], row["text"]) for row in groups] == [
        (0, 0, "aaab"),
        (0, 2, "AAAB"),
        (0, 3, "aaaab"),
        (0, 4, "aab"),
        (1, 1, "ffg"),
        (1, 5, "gff"),
        (2, 6, "jjj"),
        (2, 7, "JJJ"),
    ]
    assert [row["score"] for row in groups[:4]] == [1, 1, pytest.approx(0.997, abs=1e-3), 0.9899]
    assert (result["communities"], result["in_communities"], result["largest"]) == (3, 8, 4)
    assert hidden() == []


def test_columns_of_a_table_are_joined_and_numbers_stay_numbers(run):
    content = 'id,anchor,positive\n7,aa,"b, a"\n8,ff,g\n9,aaa,b\n'
    pairs, _ = run(content, "--columns", "anchor", "positive", name="in.csv", to="out.jsonl")
    assert pairs == [{"score": pytest.approx(1), "row1": 0, "row2": 2, "text1": "aa b, a", "text2": "aaa b"}]


@pytest.mark.parametrize("content", ["aaab\n", "aaab\nfff\n"], ids=["one text", "no pair"])
def test_no_pair_is_an_empty_table(run, content):
    pairs, result = run(content, "--communities", "groups.csv")
    assert pairs == read("groups.csv") == []
    assert Path("out.csv").read_text("utf-8") == "score,row1,row2,text1,text2\n"
    assert (result["pairs"], result["communities"], result["largest"], result["least"]) == (0, 0, 0, [])


def test_rows_that_are_all_equal_give_one_pair_each_and_one_community(run):
    pairs, result = run("a dog\n" * 2000, "--communities", "groups.csv")
    assert len(pairs) == 1999
    assert {pair["row1"] for pair in pairs} == {"0"}
    assert (result["communities"], result["largest"]) == (1, 2000)


def test_texts_that_have_more_pairs_than_are_written_are_counted(run):
    texts = "\n".join("a" * (i + 1) for i in range(50))
    pairs, result = run(texts, "--top-k", 5, "--communities", "groups.csv")
    assert len(pairs) == 5 * 50 - 15
    assert result["with_top_k"] == 50
    assert result["largest"] == 50


@pytest.mark.parametrize("moment", [2, 3])
def test_a_run_that_was_killed_while_encoding_continues(run, capsys, moment):
    whole, _ = run("\n".join(LINES), to="whole.csv")
    run("\n".join(LINES), model=Stub(dies_at=moment), killed=True)
    with pytest.raises(UserError, match="was stopped. Continue it with `resume`"):
        run("\n".join(LINES))
    again = Stub()
    pairs, _ = run("\n".join(LINES), "--resume", model=again)
    assert pairs == whole
    assert again.encoded == 4 + 6 - 2 * max(moment - 2, 0)
    assert hidden() == []
    paraphrases.main(["in.txt", "--model", "some/model", "--to", "out.csv", "--resume"])
    assert capsys.readouterr().out == "out.csv: is complete\n"


@pytest.mark.parametrize("flag", [[], ["--index", "ivf"]], ids=["flat", "ivf"])
def test_a_run_that_was_killed_while_comparing_goes_on_there(run, monkeypatch, flag):
    if flag:
        pytest.importorskip("faiss", reason="faiss is not installed: pip install 'simcse-tf[index]'")
    monkeypatch.setattr(finding, "_ROWS", 4)
    monkeypatch.setattr(paraphrases, "_CELLS", 2)
    content = "\n".join("abcdefg"[i % 7] * (1 + i // 7) + "hij"[i % 3] for i in range(60))
    whole, _ = run(content, *flag, to="whole.csv")
    nearest, left = finding._nearest, [9]

    def dies(*arguments):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return nearest(*arguments)

    monkeypatch.setattr(finding, "_nearest", dies)
    run(content, *flag, killed=True)
    began = []
    monkeypatch.setattr(finding, "_nearest", lambda *arguments: began.append(1) or nearest(*arguments))
    pairs, _ = run(content, *flag, "--resume")
    assert pairs == whole
    assert 0 < len(began) <= 15 - 8 if not flag else began
    run(content, *flag, "--resume", "--threshold", 0.99, to="other.csv")
    assert hidden() == []


def test_other_flags_after_a_kill_look_anew_with_the_same_vectors(run, monkeypatch):
    monkeypatch.setattr(finding, "_ROWS", 2)
    monkeypatch.setattr(paraphrases, "_CELLS", 1)
    written = sources.written

    def dies(*arguments):
        raise Killed

    monkeypatch.setattr(sources, "written", dies)
    run("\n".join(LINES), killed=True)
    monkeypatch.setattr(sources, "written", written)
    again = Stub()
    pairs, _ = run("\n".join(LINES), "--resume", "--threshold", 0.995, model=again)
    assert len(pairs) == 3
    assert again.encoded == 4, "texts were encoded again"


def test_vectors_that_are_kept_are_taken(run):
    run("\n".join(LINES), "--vectors", "kept")
    again = Stub()
    pairs, _ = run("\n".join(LINES), "--vectors", "kept", "--threshold", 0.995, to="out2.csv", model=again)
    assert len(pairs) == 3
    assert again.encoded == 4
    with pytest.raises(UserError, match="its texts are not those that the vectors in kept are of"):
        run("a\nb\n", "--vectors", "kept", to="out3.csv")


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("fine\ncaf\udce9\n", [], r"in.txt:2: byte 0xe9 .*Correct it"),
        ("\n \n", [], "in.txt: no row with text"),
        ("a\n", ["--to", "out.txt"], "must end in .csv, .tsv, .jsonl"),
        ("a\n", ["--communities", "out.txt"], "`communities` out.txt: must end in .csv"),
        ("a\n", ["--communities", "no/out.csv"], "the directory no does not exist"),
        ("a\n", ["--communities", "out.csv"], "is `to` as well"),
        ("a\n", ["--to", "old.csv"], "exists. Replace it with `overwrite`"),
        ("a\n", ["--threshold", "80"], "`threshold` 80.0: must be above 0 and at most 1"),
        ("a\n", ["--top-k", "0"], "`top_k` 0: must be at least 1"),
        ("a\n", ["--columns", "text"], "has no named columns"),
        ("a\n", ["--vectors", "full"], "holds no vectors but x"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, content, flags, message):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_bytes(content.encode("utf-8", "surrogateescape"))
    Path("old.csv").write_text("mine", "utf-8")
    Path("full").mkdir()
    Path("full/x").write_text("", "utf-8")
    monkeypatch.setattr(paraphrases.loading, "locate", lambda name: lambda: Stub())
    to = [] if "--to" in flags else ["--to", "out.csv"]
    with pytest.raises(UserError, match=message):
        paraphrases.main(["in.txt", "--model", "some/model", *to, *flags])
    assert Path("old.csv").read_text("utf-8") == "mine"
    assert not list(Path().glob("out*"))
    assert hidden() == []


def test_rows_are_numbered_as_pandas_and_numpy_number_them(run):
    pairs, _ = run("text,label\naab,x\n\naab b,y\nfff,x\n", name="in.csv")
    assert [(pair["row1"], pair["row2"]) for pair in pairs] == [("0", "1")]
    assert np.float32(pairs[0]["score"]) < 1
