import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """20 rows of each kind."""
    directory = tmp_path_factory.mktemp("replicas")
    left, right, negatives = SENTENCES[:20], SENTENCES[20:40], SENTENCES[40:60]
    rows = [",".join(row) for row in zip(left, right, negatives, negatives[::-1], strict=True)]
    # Half of the rows twice: a batch of 8 of them has false negatives, also between replicas.
    negatives = ["anchor,positive,negative_1,negative_2", *rows[:10], *rows]
    classes = ["text,label", *(f"{text},{i % 4}" for i, text in enumerate(left))]
    graded = ["text1,text2,score", *(f"{a},{b},{i % 5}" for i, (a, b) in enumerate(zip(left, right, strict=True)))]
    for name, lines in (("negatives", negatives), ("classes", classes), ("graded", graded)):
        (directory / f"{name}.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (directory / "sentences.txt").write_text("\n".join(left) + "\n", "utf-8")
    return directory


def train(preset, data, replicas):
    """What one replica and several have learned, by kind."""
    worker = Path(__file__).with_name("replicas_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(preset), str(data), str(replicas)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(worker.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout)
    return results["one"], results["several"]


def test_two_replicas_compute_what_one_would_with_the_whole_batch(tiny_preset, data):
    """Texts from a list, shuffled, evaluated and predicted; classes, graded pairs, whatever has a state, a teacher."""
    one, two = train(tiny_preset, data, 2)
    assert set(one) == set(two) == {"texts", "classes", "graded", "everything", "taught"}
    for kind, trained in two.items():
        compare(trained, one[kind])


def test_four_replicas_compute_what_one_would_with_the_whole_batch(tiny_preset, data):
    """Hard negatives, clipping and AdamW; dropout off."""
    one, four = train(tiny_preset, data, 4)
    assert max(one["negatives"]["false_negatives"]) > 0
    compare(four["negatives"], one["negatives"])


def compare(several, one):
    assert several["false_negatives"] == one["false_negatives"]
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-5)
    # Adam divides gradients by their size, which magnifies rounding where they are next to nothing.
    difference = np.abs(np.array(several["weights"]) - np.array(one["weights"]))
    assert np.percentile(difference, 99) < 1e-6
