import io

import pytest
from rich.console import Console

from simcse_tf import cli
from simcse_tf.training.progress import ProgressBar, about


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


def bar(console, step, **changes):
    settings = {"sentences_per_step": 64, "eval_every": 10, "evaluation_seconds": 7.0, "export": False, "report": False}
    made = ProgressBar(step, 25, **settings | changes, console=console)
    made._setup_seconds = 5.0
    return made


@pytest.mark.parametrize(
    ("step", "evaluations"),
    [(1, 3), (9, 3), (10, 3), (11, 2), (20, 2), (21, 1), (25, 1)],
)
def test_the_time_left_counts_the_evaluations_that_follow(console, step, evaluations):
    assert bar(console, step).seconds_left(2.0) == (25 - step) * 2 + evaluations * 7


def test_the_time_left_counts_export_and_report(console):
    last = bar(console, 25).seconds_left(2.0)
    assert bar(console, 25, export=True).seconds_left(2.0) == last + 10
    # The report encodes the development set twice.
    assert bar(console, 25, report=True).seconds_left(2.0) == last + 10 + 14


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.2, "about 1 s"), (12, "about 15 s"), (88, "about 90 s"), (200, "about 3 min"), (9000, "about 2.5 h")],
)
def test_an_estimate_is_not_more_precise_than_it_can_be(seconds, expected):
    assert about(seconds) == expected


def test_a_long_phase_says_when_it_begins_and_how_long_it_took(console):
    with cli.phase(console, "exporting"):
        assert console.file.getvalue() == "exporting ...\n"
    assert console.file.getvalue().splitlines()[1].startswith("exporting: done in 0 s")
