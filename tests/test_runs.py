import json

import pytest

from simcse_tf import runs
from simcse_tf.config import TrainConfig
from simcse_tf.errors import UserError

LINES = [
    {"step": 0, "dev": 70.0},
    {"step": 1, "loss": 2.0},
    {"step": 2, "loss": 1.0},
    {"step": 2, "dev": 71.0},
    {"step": 4, "dev": 71.0},
]


@pytest.fixture
def run(tmp_path):
    (tmp_path / "checkpoints" / "best").mkdir(parents=True)
    (tmp_path / "config.json").write_text(TrainConfig(seed=7).to_json(), "utf-8")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES), "utf-8")
    return tmp_path


def test_a_run_is_what_it_logged(run):
    found = runs.read(run)
    assert found.config == TrainConfig(seed=7)
    assert found.metrics == LINES
    assert found.evaluations == [LINES[0], LINES[3], LINES[4]]
    assert found.before == LINES[0]
    assert found.steps == 4
    assert found.encoder == run / "checkpoints" / "best"
    assert found.versions == {}


def test_the_best_of_equal_evaluations_is_the_earliest(run):
    assert runs.read(run).best["step"] == 2


def test_a_last_line_without_its_end_is_left_out(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    assert runs.read(run).metrics == LINES


def test_a_last_line_that_lacks_nothing_but_its_newline_counts(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "loss": 1.0}')
    assert runs.read(run).steps == 5


def test_a_damaged_line_is_named(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo\n{"step": 6, "loss": 1.0}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:6: damaged"):
        runs.read(run)


def test_a_damaged_configuration_is_named_with_its_line(run):
    (run / "config.json").write_text('{"seed": 7,\n"data"', "utf-8")
    with pytest.raises(UserError, match=r"config\.json:2: not JSON"):
        runs.read(run)


def test_a_run_that_was_not_evaluated_has_no_best(run):
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    found = runs.read(run)
    assert found.evaluations == []
    for name in ("best", "before"):
        with pytest.raises(UserError, match="`resume`"):
            getattr(found, name)


def test_other_directories_are_not_runs(tmp_path):
    (tmp_path / "config.json").write_text("{}", "utf-8")
    assert not runs.is_run(tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        runs.read(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        "[1]",
        '[{"name": "a", "labels": {"spearman": "Spearman"}}]',
        '[{"name": "a", "headline": "b", "labels": {}}]',
    ],
)
def test_damaged_development_sets_are_named(run, content):
    (run / "development.json").write_text(content, "utf-8")
    with pytest.raises(UserError, match=r"development\.json: damaged"):
        runs.read(run)


@pytest.mark.parametrize("line", [b'{"anchor": "\xff", "positive": "b"}', b'{"anchor": "a"}', b"[]", b"{"])
def test_a_damaged_line_of_held_out_rows_is_named(run, line):
    (run / "held_out.jsonl").write_bytes(b'{"anchor": "a\xc2\x85", "positive": "b"}\n' + line + b"\n")
    with pytest.raises(UserError, match=r"held_out\.jsonl:2: damaged"):
        runs.read_held_out(run)
