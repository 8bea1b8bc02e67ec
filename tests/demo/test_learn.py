"""Trainings that the page starts: what they are given, their queue, how they end, and what outlives the server."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from simcse_tf import runs
from simcse_tf.demo import learn, material, progress
from simcse_tf.demo.__main__ import DemoConfig, _is_private
from simcse_tf.demo.jobs import Jobs, Settings, State
from simcse_tf.demo.models import Registry
from simcse_tf.errors import UserError
from tests.conftest import SENTENCES
from tests.demo.conftest import end_trainings

PAIRS = "\n".join(f"{a} | {b}" for a, b in zip(SENTENCES[:12], SENTENCES[12:24], strict=True))


class TestMaterial:
    def test_lines_are_sentences_unless_the_first_has_a_bar_or_a_tab(self):
        assert material.typed("a\n\nb\nc\nd | e").rows == [("a",), ("b",), ("c",), ("d | e",)]
        found = material.typed("a | b\nc\td\ne|f\ng | h")
        assert (found.columns, found.rows[1:3]) == (("anchor", "positive"), [("c", "d"), ("e", "f")])
        assert material.typed("\n".join("a|b|" + c for c in "cdef")).columns == ("anchor", "positive", "negative")

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("a\nb\nc", "3 of at least 4"),
            ("a\na\na\na", "1 different rows"),
            ("a|b\nc|d\ne\nf|g", "Line 3 has 1 texts, the first one 2"),
            ("a|b\nc|d\ne|\nf|g", "Line 3 has 1 texts, the first one 2"),
            ("x\n" * 20_001, "20,001 lines; at most 20,000"),
        ],
    )
    def test_lines_that_cannot_be_used_are_refused_with_the_reason(self, given, message):
        with pytest.raises(UserError, match=message):
            material.typed(given)

    @pytest.mark.parametrize(
        ("name", "content", "columns", "kind"),
        [
            ("a.txt", "a\nb\nc\nd\n", ("text",), "sentences"),
            ("a.csv", "question,answer,id\n" + "".join(f"q{i},a{i},{i}\n" for i in range(4)), 2, "pairs"),
            (
                "a.jsonl",
                "".join(f'{{"text": "t{i}", "label": "{i % 2}"}}\n' for i in range(4)),
                ("text", "label"),
                "texts",
            ),
            ("a.tsv", "anchor\tpositive\tnegative\n" + "".join(f"{i}\tb\tc\n" for i in range(4)), 3, "pairs with hard"),
        ],
    )
    def test_files_are_read_as_the_trainer_reads_them(self, tmp_path, name, content, columns, kind):
        (tmp_path / name).write_text(content, "utf-8")
        found = material.uploaded(tmp_path / name)
        assert found.kind.startswith(kind)
        assert len(found.rows) == 4
        assert found.columns == columns or len(found.columns) == columns
        found.write(tmp_path / "rows.jsonl")
        lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()]
        assert [tuple(line) for line in lines] == [found.columns] * 4
        assert [tuple(line.values()) for line in lines] == found.rows

    def test_graded_pairs_are_refused_and_a_bad_row_is_named(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("sentence1,sentence2,score\na,b,1\n", "utf-8")
        with pytest.raises(UserError, match=r"has graded pairs \(column score\)"):
            material.uploaded(path)
        path.write_text("a,b\n1,2\n3,\n", "utf-8")
        with pytest.raises(UserError, match=r"a\.csv:3: 'b' is empty"):
            material.uploaded(path)

    def test_what_is_watched_is_spread_over_all_rows(self, tmp_path):
        found = material.bundled("bundled:triplets")
        found.write_sample(tmp_path / "watched.jsonl")
        lines = (tmp_path / "watched.jsonl").read_text("utf-8").splitlines()
        assert 100 <= len(lines) * 3 <= 500
        assert json.loads(lines[0])["anchor"] == found.rows[0][0]


@pytest.fixture
def jobs(tmp_path, tiny_preset):
    """Trainings of a folder of their own; none is left running."""
    made = Jobs(tmp_path / "runs", tmp_path / "models", [str(tiny_preset), str(tmp_path / "gone")])
    yield made
    end_trainings(made)


def wait(what, *, seconds=600):
    """Waits until a function gives something true, and returns that."""
    until = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.1)
    return found


def ended(job):
    return job.state() if job.state().ended else None


def test_a_training_that_fails_says_why_and_the_next_one_has_its_turn(jobs, tmp_path):
    rows, settings = material.typed(PAIRS), Settings(base=str(tmp_path / "gone"), steps=2, batch_size=4)
    first, second, third = (jobs.start(name, rows, settings) for name in ("first", "second", "third"))
    assert first.state().what == "running"
    assert [jobs.place(job) for job in (second, third)] == [1, 2]
    jobs.stop("second")
    assert second.state() == State("stopped", "Taken out of the queue.")
    assert jobs.place(third) == 1
    state = wait(lambda: ended(first))
    assert state.what == "failed"
    assert "gone: no such directory" in state.message
    shown = learn.status(jobs, first, state, None)
    assert "gone: no such directory" in shown
    # The lock is given back a moment after the last word.
    wait(lambda: jobs.advance() or third.state().what != "waiting")
    # A server that is started again finds them all.
    again = Jobs(tmp_path / "runs", tmp_path / "models")
    assert [job.name for job in again.all()] == ["third", "second", "first"]
    assert again.get("first").state() == state
    assert wait(lambda: ended(again.get("third"))).what == "failed"


def test_a_trainer_that_is_killed_is_said_to_be(jobs, tiny_preset):
    job = jobs.start("mine", material.typed(PAIRS), Settings(base=str(tiny_preset), batch_size=4))
    process = int((job.directory / "lock").read_text())
    children = Path(f"/proc/{process}/task/{process}/children")
    os.kill(int(wait(lambda: children.read_text().split())[0]), signal.SIGKILL)
    state = wait(lambda: ended(job))
    assert state.what == "failed"
    assert "killed, most likely because the machine ran out of memory" in state.message


def test_a_process_that_is_killed_leaves_a_training_that_failed(jobs, tiny_preset):
    job = jobs.start("mine", material.typed(PAIRS), Settings(base=str(tiny_preset), batch_size=4))
    os.killpg(int((job.directory / "lock").read_text()), signal.SIGKILL)
    assert wait(lambda: ended(job)) == State("failed", "It was killed, and could not say why.")


def test_one_is_stopped_by_another_server_and_one_finishes(jobs, tiny_preset, tmp_path, monkeypatch):
    """Both leave a model that answers; the first one has gone as far as its last evaluation."""
    rows = material.typed(PAIRS)
    long = jobs.start("long", rows, Settings(base=str(tiny_preset), steps=1000, batch_size=4, learning_rate=1e-4))
    short = jobs.start("short", rows, Settings(base=str(tiny_preset), steps=4, batch_size=4))
    wait(lambda: len(runs.watched_steps(long.run)) > 1)
    again = Jobs(tmp_path / "runs", tmp_path / "models")
    assert again.get("long").state().what == "running"
    assert short.state().what == "waiting"
    again.stop("long")
    assert again.get("long").state().what in ("stopping", "stopped")
    state = wait(lambda: ended(long))
    assert (state.what, state.message) == ("stopped", "Stopped.")
    found = progress.of_job(long)
    assert 0 < found.best_step <= found.step < 1000
    assert found.judge == "your rows: partners found near the top (nDCG@10 x 100)"
    assert found.rate > 0

    wait(lambda: again.advance() or short.state().what != "waiting")
    state = wait(lambda: ended(short))
    assert state.what == "done", state.message
    steps = list(runs.watched_steps(short.run))
    assert steps == [0, 2, 4]
    first, last = (np.load(runs.watched_steps(short.run)[step]) for step in (0, 4))
    assert np.abs(first - last).max() > 1e-3
    registry = Registry(tmp_path / "models")
    assert set(registry.keys()) == {"long/1", "short/1"}
    texts = runs.read_watched(short.run).texts
    np.testing.assert_allclose(registry.model("short/1").encode(texts), last, atol=2e-3)
    # What has been trained can be trained further, and its name is taken.
    assert {"training long", "training short"} <= set(again.bases().values())
    with pytest.raises(UserError, match="There is a model 'short' already"):
        jobs.start("short", rows, Settings(base=str(tiny_preset), batch_size=4))
    # A training can be deleted, unless another one begins with it. Its model stays.
    base = next(each for each, label in again.bases().items() if label == "training long")
    monkeypatch.setattr("simcse_tf.demo.jobs._start", lambda job: None)
    further = jobs.start("further", rows, Settings(base=base, batch_size=4))
    for name, message in (("long", "'further' begins with 'long'"), ("further", "has not ended"), ("x", "no training")):
        with pytest.raises(UserError, match=message):
            again.delete(name)
    again.stop("further")
    for name in ("further", "long"):
        again.delete(name)
    assert [job.name for job in jobs.all()] == ["short"]
    assert not further.directory.exists()
    assert not long.directory.exists()
    assert set(registry.keys()) == {"long/1", "short/1"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("../x", {}, "expected 1 to 40 letters"),
        ("", {}, "expected 1 to 40 letters"),
        ("x", {"base": "/etc"}, "no encoder to begin with"),
        ("x", {"batch_size": 16}, "Batch 16: expected a whole number from 2 to 12, as many as there are rows: 12"),
        ("x", {"steps": 5000}, "Steps 5000: expected a whole number from 1 to 1000"),
        ("x", {"temperature": -1}, "Temperature -1: expected a number above 0"),
        ("x", {"learning_rate": "a"}, "Learning rate a: expected a number"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_begins(jobs, tiny_preset, name, settings, message):
    with pytest.raises(UserError, match=message):
        jobs.start(name, material.typed(PAIRS), Settings(**{"base": str(tiny_preset), "batch_size": 4} | settings))
    assert jobs.all() == []


@pytest.mark.parametrize(
    ("rows", "judged"),
    [
        (material.typed(PAIRS), "your-rows.jsonl --select-by last"),
        (material.typed("\n".join(SENTENCES)), "bundled --select-by last"),
        (material.bundled("bundled:triplets"), "held-out bundled --no-report"),
    ],
)
def test_few_rows_are_judged_by_themselves_and_many_by_what_is_held_out(jobs, tiny_preset, monkeypatch, rows, judged):
    monkeypatch.setattr("simcse_tf.demo.jobs._start", lambda job: None)
    job = jobs.start("mine", rows, Settings(base=str(tiny_preset), batch_size=4))
    assert judged in " ".join(job.about["flags"])


@pytest.mark.parametrize("name", ["../first", "nothing", "", None])
def test_only_trainings_can_be_looked_at(jobs, name):
    with pytest.raises(UserError, match="no training"):
        jobs.get(name)


@pytest.mark.parametrize(
    ("flags", "private"),
    [
        ({}, True),
        ({"host": "localhost"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"share": True}, False),
        ({"root_path": "/demo"}, False),
    ],
)
def test_nobody_trains_where_others_can_open_the_page(flags, private):
    assert _is_private(DemoConfig(**flags)) == private
