"""`python -m simcse_tf.deduplicate`, with a stub for a model."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from simcse_tf import deduplicate
from simcse_tf.errors import UserError
from simcse_tf.serving import vectors
from simcse_tf.serving.probes import PROBES
from tests.test_mine import Killed, hidden


class Stub:
    """A model that counts letters; is killed at its `dies_at`-th call."""

    prompt_names = ()

    def __init__(self, dies_at=0):
        self.left, self.encoded, self.texts = dies_at, 0, set()

    def encode(self, texts, *, batch_size=64):
        self.left -= 1
        if self.left == 0:
            raise Killed
        self.encoded += len(texts)
        self.texts.update(texts)
        counts = np.array([[1e-3 + text.lower().count(c) for c in "abcdefghij"] for text in texts], "float32")
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in `tmp_path`; returns the bytes of the output and what was printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vectors, "_CALLS", 1)

    def run(content, *flags, name="in.txt", to=None, model=None, killed=False):
        data = content.encode() if isinstance(content, str) else content
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        monkeypatch.setattr(deduplicate.loading, "locate", lambda name: lambda: model)
        to = to or f"out{Path(name.removesuffix('.gz')).suffix}"
        given = ["--model", "some/model", "--batch-size", "2"] if model else []
        arguments = [name, "--to", to, *given, *flags]
        if killed:
            with pytest.raises(Killed):
                deduplicate.main(arguments)
            return None
        deduplicate.main(arguments)
        return Path(to).read_bytes(), capsys.readouterr().out

    return run


def test_lines_that_differ_in_case_and_spacing_are_one_and_the_first_stays_as_it_is(run):
    written, out = run("\ufeffA  dog\r\n\n a DOG \nStra\u00dfe\nSTRASSE\na cat\n\u2003\nno line end")
    assert written.decode() == "A  dog\nStra\u00dfe\na cat\nno line end\n"
    result = json.loads(out)
    assert (result["rows"], result["exact"], result["near"], result["kept"]) == (6, 2, 0, 4)
    assert [(pair["text"], pair["repeats"]) for pair in result["sample"]] == [
        ("a DOG", "A  dog"),
        ("STRASSE", "Stra\u00dfe"),
    ]
    assert hidden() == []


TABLE = 'id,anchor,positive\n1,A dog,"It barks, loudly"\n,a dog,it  barks, loudly\n3,a dog,it sits\n'.replace(
    "it  barks, loudly", '"it  barks, loudly"'
)


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.csv.gz"])
def test_whole_rows_of_a_table_are_compared_by_their_text_columns(run, name):
    content = TABLE if "csv" in name else TABLE.replace(", ", "; ").replace(",", "\t")
    written, _ = run(content, name=name)
    lines = content.splitlines(keepends=True)
    kept = "".join([lines[0], lines[1], lines[3]])
    assert written.decode() == (kept if "csv" in name else kept.replace('"', ""))
    written, _ = run(content, "--columns", "anchor", "--overwrite", name=name)
    assert len(written.splitlines()) == 2


def test_columns_do_not_run_into_each_other(run):
    written, _ = run("anchor,positive\na b,c\na,b c\n", name="in.csv")
    assert len(written.splitlines()) == 3


def test_json_lines_stay_as_they_are(run):
    lines = ['{"text": "a dog", "id": [1]}', '{"id":2,"text":"A DOG"}', "", '{"text":  "caf\\u00e9"}']
    written, _ = run("\n".join(lines), name="in.jsonl")
    assert written.decode() == f"{lines[0]}\n{lines[3]}\n"


def test_labels_and_scores_are_not_compared_nor_encoded(run):
    lines = ['{"text": "aab", "label": 1}', '{"text": "AAB", "label": 2}', '{"text": "cd", "label": 3}']
    written, _ = run("\n".join(lines), name="in.jsonl", model=Stub())
    assert written.decode() == f"{lines[0]}\n{lines[2]}\n"
    model = Stub()
    run("sentence1,sentence2,score\na,b,0.5\n", name="in.csv", model=model)
    assert model.texts - set(PROBES) == {"a b"}


def test_rows_that_are_near_to_an_earlier_one_are_left_out_too(run, capsys):
    lines = ["aaab", "ffg", "AAAB", "aaaab", "aab", "gff", "jjj"]
    model = Stub()
    written, out = run("\n".join(lines), "--threshold", "0.995", model=model)
    # aab is near to aaab at 0.990 alone, and gff counts as ffg.
    assert written.decode().split() == ["aaab", "ffg", "aab", "jjj"]
    result = json.loads(out)
    assert (result["rows"], result["exact"], result["near"], result["kept"]) == (7, 1, 2, 4)
    near = [pair for pair in result["sample"] if pair["cosine"] is not None]
    assert [(pair["text"], pair["repeats"]) for pair in near] == [("aaaab", "aaab"), ("gff", "ffg")]
    assert near[1]["cosine"] == pytest.approx(1, abs=1e-5)
    assert model.encoded == 4 + 6, "a repetition was encoded"


@pytest.mark.parametrize("moment", [2, 3])
def test_a_run_that_was_killed_while_encoding_continues(run, moment):
    content = "aaab\nffg\naaaab\naab\ngff\njjj\n"
    whole, _ = run(content, model=Stub(), to="whole.txt")
    run(content, model=Stub(dies_at=moment), killed=True)
    with pytest.raises(UserError, match="was stopped. Continue it with `resume`"):
        run(content, model=Stub())
    again = Stub()
    written, _ = run(content, "--resume", model=again)
    assert written == whole
    assert again.encoded == 4 + 6 - 2 * max(moment - 2, 0)
    assert hidden() == []


@pytest.mark.parametrize(
    ("name", "content", "flags", "message"),
    [
        ("in.txt", "fine\ncaf\udce9\n", [], r"in.txt:2: byte 0xe9 .*Correct it"),
        ("in.txt", "", [], "empty"),
        ("in.txt", "\n \n", [], "in.txt: no row with text"),
        ("in.csv", "anchor,positive\na,\n", [], "in.csv:2: 'positive' is empty"),
        ("in.csv", "a,b,c,d\n1,2,3,4\n", [], "which of its columns"),
        ("in.csv", "text,x,x\n1,2,3\n", [], "two columns are named 'x'"),
        ("in.jsonl", '{"text": "a"}\n{"text": \n', [], "in.jsonl:2: broken JSON"),
        ("in.txt", "a\n", ["--to", "out.csv"], "must end in .txt"),
        ("in.txt", "a\n", ["--to", "in.txt", "--overwrite"], "is a file that is read"),
        ("in.txt", "a\n", ["--to", "old.txt"], "exists. Replace it with `overwrite`"),
        ("in.txt", "a\n", ["--threshold", "95"], "`threshold` 95.0: must be above 0 and at most 1"),
        ("in.txt", "a\n", ["--columns", "text"], "has no named columns"),
    ],
)
def test_bad_input(tmp_path, monkeypatch, name, content, flags, message):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content.encode("utf-8", "surrogateescape"))
    Path("old.txt").write_text("mine", "utf-8")
    to = [] if "--to" in flags else ["--to", f"out{Path(name).suffix}"]
    with pytest.raises(UserError, match=message):
        deduplicate.main([name, *to, *flags])
    assert Path("old.txt").read_text("utf-8") == "mine"
    assert not list(Path().glob("out*"))
    assert hidden() == []


@pytest.mark.parametrize(
    ("name", "content", "bad", "kept"),
    [
        ("in.txt", b"caf\xe9\na dog\n\nA  dog\n\xff\na cat\n", 2, b"a dog\na cat\n"),
        ("in.jsonl", b'{"text": "x"}\n{"text": \n{"text": 3}\n{"text": "X"}\n', 2, b'{"text": "x"}\n'),
        ("in.csv", b"text,i\nx,1\n,2\nX,3\ny,4\n", 1, b"text,i\nx,1\ny,4\n"),
    ],
)
def test_bad_rows_are_left_out_and_counted(run, name, content, bad, kept):
    written, out = run(content, "--skip-bad-rows", name=name)
    assert written == kept
    found = json.loads(out)
    assert (found["bad_rows"], found["exact"]) == (bad, 1)


def test_no_such_file(tmp_path):
    with pytest.raises(UserError, match="none.txt: No such file"):
        deduplicate.main([str(tmp_path / "none.txt"), "--to", str(tmp_path / "x.txt")])
