"""`python -m simcse_tf.mine` with a stub for a model, and once with the tiny BERT."""

import csv
import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from simcse_tf import mine
from simcse_tf.data.sources import open_source
from simcse_tf.errors import UserError
from simcse_tf.serving import index, vectors
from tests.conftest import SENTENCES

pytest.importorskip("faiss", reason="needs faiss: pip install -e '.[dev]'")


class Killed(BaseException):
    """The end of a process, as far as the files are concerned."""


class Stub:
    """A model whose vectors depend on the text alone, case and spacing aside; is killed at its `dies_at`-th call."""

    prompt_names = ()

    def __init__(self, seed=0, dies_at=0):
        self.seed, self.left, self.encoded = seed, dies_at, 0

    def encode(self, texts, *, batch_size=64):
        self.left -= 1
        if self.left == 0:
            raise Killed
        self.encoded += len(texts)
        return np.array([self.vector(text) for text in texts], "float32")

    def vector(self, text):
        topic, *_ = text.casefold().split() or [""]
        parts = [np.random.default_rng(zlib.crc32(part.encode()) + self.seed) for part in (topic, text.casefold())]
        vector = parts[0].normal(size=8) + 0.7 * parts[1].normal(size=8)
        return vector / np.linalg.norm(vector)


# 3 anchors and 6 positives of each of 20 topics; rows of one anchor stand apart.
PAIRS = [(f"t{i % 20} anchor {i % 60}", f"t{i % 20} positive {i}") for i in range(120)]


def write(path, rows, names=("anchor", "positive")):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([names, *rows])


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in `tmp_path` over PAIRS; returns the rows of the output."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mine, "_BLOCK", 16)
    monkeypatch.setattr(vectors, "_CALLS", 1)
    write("pairs.csv", PAIRS)

    def run(*flags, model=None, to="out.csv", killed=False):
        monkeypatch.setattr(mine.loading, "locate", lambda name: lambda: model or Stub())
        arguments = ["pairs.csv", "--model", "some/model", "--to", to, "--batch-size", "8", *map(str, flags)]
        if killed:
            with pytest.raises(Killed):
                mine.main(arguments)
            return None
        mine.main(arguments)
        with open(to, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    return run


def hidden():
    return [path.name for path in Path().iterdir() if path.name.startswith(".")]


def expected(negatives=1, corpus=(), relative_margin=0.05, range_from=1, range_to=100):
    """What the command should write, found by a loop over everything."""
    texts = list(dict.fromkeys([*(p for _, p in PAIRS), *corpus]))
    model = Stub()
    space = {text: model.vector(text).astype("float32") for text in {*texts, *(a for a, _ in PAIRS)}}
    rows = []
    for anchor, positive in PAIRS:
        own = {p for a, p in PAIRS if a == anchor}
        least = min(space[anchor] @ space[p] for p in own)
        ranked = sorted((t for t in texts if t not in own and t != anchor), key=lambda t: -(space[anchor] @ space[t]))
        looked_at = ranked[range_from - 1 : range_to]
        found = [t for t in looked_at if space[anchor] @ space[t] <= least - relative_margin * abs(least)]
        if len(found) >= negatives:
            rows.append([anchor, positive, *found[:negatives]])
    return rows


def test_the_negatives_are_those_that_a_loop_over_everything_finds(run):
    found = run()
    assert list(found[0]) == ["anchor", "positive", "negative"]
    assert [list(row.values()) for row in found] == expected()
    assert hidden() == []


def test_a_model_with_prompts_has_them_put_before_anchors_and_candidates(run):
    asked = {}

    class Prompted(Stub):
        prompt_names = ("query", "passage")

        def encode(self, texts, *, batch_size=64, prompt_name=None):
            asked.setdefault(prompt_name, set()).update(texts)
            return super().encode(texts, batch_size=batch_size)

    run(model=Prompted())
    assert asked["query"] >= {anchor for anchor, _ in PAIRS}
    assert asked["passage"] >= {positive for _, positive in PAIRS}
    assert not asked.get(None, set()) & {text for pair in PAIRS for text in pair}


def test_graded_pairs_are_refused(run):
    write("graded.csv", [("a", "b", 1), ("c", "d", 2)], ("sentence1", "sentence2", "score"))
    with pytest.raises(UserError, match="graded.csv: graded pairs, of which not all are positives"):
        mine.main(["graded.csv", "--model", "minilm", "--to", "out.csv"])


def test_several_negatives_from_some_ranks_and_a_corpus(run):
    corpus = [f"t{i} other {j}" for i in range(20) for j in range(5)]
    Path("more.txt").write_text("\n".join([*corpus, "T3  POSITIVE 3"]) + "\n", "utf-8")
    found = run("--corpus", "more.txt", "--negatives", 3, "--range-from", 3, "--range-to", 40)
    assert list(found[0])[2:] == ["negative_1", "negative_2", "negative_3"]
    assert [list(row.values()) for row in found] == expected(3, corpus, range_from=3, range_to=40)
    assert len(found) < len(PAIRS), "no row was left out"


def test_training_reads_what_comes_out_in_every_format(run, monkeypatch):
    rows = [tuple(row) for row in expected()]
    for to in ("out.csv", "out.tsv", "out.jsonl"):
        run(to=to)
        source = open_source(to)
        assert source.views == 3
        assert list(source.rows()) == rows


def test_the_result_says_what_was_left_out_and_shows_rows(run, capsys):
    found = run("--negatives", 2, "--max-score", 0.7, "--range-from", 2)
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert (result["rows"], result["rows_written"]) == (120, len(found))
    assert result["looked_at"] == sum(result["left_out"].values()) + result["may_be_negatives"]
    assert result["left_out"]["positive"] == 2 * 120
    assert result["left_out"]["rank"] == 120
    assert result["mean_score"]["positive"] > result["mean_score"]["negative"]
    space = Stub()
    for row in result["sample"]:
        written = next(r for r in found if r["positive"] == row["positive"]["text"])
        assert [each["text"] for each in row["negatives"]] == [written["negative_1"], written["negative_2"]]
        for each in (row["positive"], *row["negatives"]):
            score = space.vector(row["anchor"]) @ space.vector(each["text"])
            assert each["score"] == pytest.approx(score, abs=1e-5)
        assert row["anchor"] in captured.err
    assert len(result["sample"]) == 5


def test_random_sampling_is_that_of_its_seed(run):
    one, again, other = (run("--sampling", "random", "--seed", seed, "--overwrite") for seed in (1, 1, 2))
    assert one == again
    assert one != other
    assert one != run("--overwrite")


def test_json_goes_into_a_file_where_one_is_named(run, capsys):
    run("--json", "out.json")
    assert capsys.readouterr().out == ""
    assert json.loads(Path("out.json").read_text("utf-8"))["index"] == "flat"


def test_cells_find_nearly_the_same(run):
    exact, found = run(), run("--index", "ivf", "--overwrite")
    assert np.mean([a in exact for a in found]) > 0.5


def test_by_default_a_large_corpus_is_sorted_into_cells(run, monkeypatch, capsys):
    monkeypatch.setattr(index, "_FLAT", 119)
    run()
    assert json.loads(capsys.readouterr().out)["index"] == "ivf"


class TestResume:
    @pytest.mark.parametrize("moment", [1, 2, 3, 17, 18, 24])
    def test_a_run_that_was_killed_while_encoding_gives_the_same_rows(self, run, moment):
        run(model=Stub(dies_at=moment), killed=True)
        assert not Path("out.csv").exists()
        again = Stub()
        found = run("--resume", model=again)
        assert [list(row.values()) for row in found] == expected()
        # The probes, and what the first process did not write.
        assert again.encoded == 4 + 180 - 8 * max(moment - 2, 0)
        assert hidden() == []

    @pytest.mark.parametrize("moment", [1, 2, 5, 8])
    @pytest.mark.parametrize("flags", [(), ("--sampling", "random", "--negatives", 2)])
    def test_a_run_that_was_killed_while_mining_gives_the_same_rows_and_counts(
        self, run, moment, flags, monkeypatch, capsys
    ):
        whole = run(*flags, to="whole.csv")
        result = json.loads(capsys.readouterr().out)
        calls = 0

        def recorded(path, text):
            nonlocal calls
            calls += 1
            if calls == moment:
                raise Killed
            write_whole(path, text)

        write_whole = mine.write_whole
        with monkeypatch.context() as patch:
            patch.setattr(mine, "write_whole", recorded)
            run(*flags, killed=True)
        again = Stub()
        assert run(*flags, "--resume", model=again) == whole
        assert again.encoded == 4, "only the probes"
        assert json.loads(capsys.readouterr().out) == result | {"to": "out.csv"}

    def test_other_limits_keep_the_vectors_and_begin_the_rows_anew(self, run, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr(mine.sources, "written", lambda *arguments: (_ for _ in ()).throw(Killed))
            run("--relative-margin", 0.2, killed=True)
        again = Stub()
        found = run("--resume", model=again)
        assert again.encoded == 4
        assert [list(row.values()) for row in found] == expected()

    def test_what_a_killed_run_left_is_not_thrown_away_unasked(self, run):
        run(model=Stub(dies_at=5), killed=True)
        with pytest.raises(UserError, match="was stopped. Continue it with `resume`, or discard"):
            run()
        again = Stub()
        run("--overwrite", model=again)
        assert again.encoded == 4 + 180

    def test_a_complete_output_is_found_complete(self, run, capsys):
        run()
        capsys.readouterr()
        again = Stub()
        run("--resume", model=again)
        assert again.encoded == 0
        assert capsys.readouterr().out == "out.csv: is complete\n"

    def test_a_kill_at_the_very_end_is_made_good(self, run, monkeypatch):
        whole = run(to="whole.csv")
        with monkeypatch.context() as patch:
            patch.setattr("simcse_tf.files.Output._finish", lambda self: (_ for _ in ()).throw(Killed))
            run(killed=True)
        assert run("--resume") == whole
        assert hidden() == []

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"pairs": PAIRS[:100]}, r"pairs.csv: its texts are not those .*\(120 then, 100 now\)"),
            ({"pairs": [*PAIRS[:-1], ("t1 x", "t1 y")]}, "pairs.csv: its texts are not those"),
            ({"model": Stub(seed=1)}, r"begun with another model \(some/model\)"),
        ],
    )
    def test_something_else_is_not_continued(self, run, change, message):
        run(model=Stub(dies_at=5), killed=True)
        write("pairs.csv", change.pop("pairs", PAIRS))
        with pytest.raises(UserError, match=message):
            run("--resume", **change)


def test_kept_vectors_are_taken_by_the_next_run(run):
    run("--vectors", "space")
    again = Stub()
    found = run("--vectors", "space", "--relative-margin", 0.2, "--overwrite", model=again)
    assert again.encoded == 4
    assert [list(row.values()) for row in found] == expected(relative_margin=0.2)
    with pytest.raises(UserError, match="space/candidates: begun with another model"):
        run("--vectors", "space", "--overwrite", model=Stub(seed=1))


def test_a_directory_of_something_else_is_not_taken_for_vectors(run):
    Path("space/candidates").mkdir(parents=True)
    Path("space/candidates/cv.txt").write_text("mine", "utf-8")
    with pytest.raises(UserError, match=r"space/candidates: holds no vectors but cv.txt"):
        run("--vectors", "space")
    assert Path("space/candidates/cv.txt").read_text("utf-8") == "mine"


def test_the_figures_are_there_before_the_output_takes_its_name(run, monkeypatch, capsys):
    def full(*arguments):
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(mine.cli, "hand_over", full)
        with pytest.raises(OSError, match="no space"):
            run("--json", "found.json")
    again = Stub()
    run("--json", "found.json", "--resume", model=again)
    assert again.encoded == 4
    assert json.loads(Path("found.json").read_text("utf-8"))["rows_written"]


def test_no_negatives_at_all_is_an_error_that_keeps_the_vectors(run):
    with pytest.raises(UserError, match="`negatives` 1.*score above --max-score"):
        run("--max-score", -1)
    again = Stub()
    assert run("--resume", model=again)
    assert again.encoded == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["none.csv"], "none.csv: No such file"),
        (["lines.txt"], "lines.txt: single texts. Hard negatives belong to pairs"),
        (["pairs.csv", "--columns", "anchr", "positive"], "no column 'anchr'. Did you mean 'anchor'"),
        (["empty_cell.csv"], "empty_cell.csv:3: 'positive' is empty; .*`skip_bad_rows`"),
        (["pairs.csv", "--to", "out.txt"], "out.txt: must end in .csv, .tsv, .jsonl"),
        (["pairs.csv", "--to", "no/out.csv"], "the directory no does not exist"),
        (["pairs.csv", "--to", "pairs.csv", "--overwrite"], "`to` pairs.csv: is a file that is read"),
        (["pairs.csv", "--to", "old.csv"], "old.csv: exists. Replace it with `overwrite`"),
        (["pairs.csv", "--resume", "--overwrite"], "contradict each other"),
        (["pairs.csv", "--negatives", "0"], "`negatives` 0: must be at least 1"),
        (["pairs.csv", "--negatives", "4", "--range-to", "3"], "`range_to` 3: must be at least 4"),
        (["pairs.csv", "--max-score", "1.5"], "`max_score` 1.5: must be at least -1 and at most 1"),
        (["pairs.csv", "--relative-margin", "5"], "`relative_margin` 5.0: must be at least 0 and at most 1"),
        (["pairs.csv", "--negatives", "100"], "`negatives` 100: there are 2 distinct texts"),
        (["pairs.csv", "--corpus", "none.txt"], "none.txt: No such file"),
        (
            ["pairs.csv", "--corpus", "wide.csv"],
            "which of its columns \\(.*\\) is the text\\? Name it with `corpus_col",
        ),
        (["pairs.csv", "--corpus", "wide.csv", "--corpus-column", "c"], "no column 'c'"),
        (["pairs.csv", "--corpus-column", "c"], "`corpus_column` names a column of `corpus`"),
        (["pairs.csv", "--json", "no/x.json"], "`json` no/x.json: the directory no does not exist"),
        (["pairs.csv", "--vectors", "old.csv"], "--vectors old.csv: old.csv is a file"),
    ],
)
def test_bad_input_is_found_before_the_model_is_loaded(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)

    def loads():
        raise AssertionError("loaded the model")

    monkeypatch.setattr(mine.loading, "locate", lambda name: loads)
    write("pairs.csv", [("a dog", "it barks"), ("a cat", "it purrs")])
    write("empty_cell.csv", [("a dog", "it barks"), ("a cat", "")])
    write("wide.csv", [("x", "y")], ("a", "b"))
    Path("lines.txt").write_text("a dog\n", "utf-8")
    Path("old.csv").write_text("mine", "utf-8")
    to = [] if "--to" in flags else ["--to", "out.csv"]
    with pytest.raises(UserError, match=message):
        mine.main([*flags, *to, "--model", "some/model"])
    assert Path("old.csv").read_text("utf-8") == "mine"
    assert not Path("out.csv").exists()


def test_bad_rows_may_be_left_out(run, capsys):
    write("pairs.csv", [*PAIRS[:50], ("t1 no positive", ""), *PAIRS[50:]])
    found = run("--skip-bad-rows")
    assert [list(row.values()) for row in found] == expected()
    assert json.loads(capsys.readouterr().out)["bad_rows"] == 1


def test_the_command_on_a_preset(tiny_preset, tmp_path, capsys):
    write(tmp_path / "pairs.csv", zip(SENTENCES[:20], SENTENCES[20:40], SENTENCES[40:], strict=True), "abc")
    to = tmp_path / "out.csv"
    mine.main([str(tmp_path / "pairs.csv"), "--model", str(tiny_preset), "--to", str(to), "--relative-margin", "0"])
    result = json.loads(capsys.readouterr().out)
    assert result["candidates"] == 20
    assert len(list(open_source(str(to)).rows())) == result["rows_written"] > 0
