import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_triplets


def train(preset, path, replicas):
    worker = Path(__file__).with_name("replicas_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(preset), str(path), str(replicas)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(worker.parents[2])},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def triplets(tmp_path_factory):
    path = write_triplets(tmp_path_factory.mktemp("replicas"))
    # Half of the rows twice: a batch of 8 of them has false negatives, also between replicas.
    header, *rows = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([header, *rows[:10], *rows]) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def one_replica(tiny_preset, triplets):
    return train(tiny_preset, triplets, 1)


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_compute_what_one_would_with_the_whole_batch(one_replica, tiny_preset, triplets, replicas):
    """Hard negatives, clipping and AdamW included; dropout off."""
    several = train(tiny_preset, triplets, replicas)
    assert (one_replica["replicas"], several["replicas"]) == (1, replicas)
    assert max(one_replica["false_negatives"]) > 0
    compare(several, one_replica)
    if replicas == 2:
        compare(several["chunked"], one_replica)
        # Texts from a list: shuffled, evaluated, predicted.
        compare(several["texts"], one_replica["texts"])


def compare(several, one):
    assert several["false_negatives"] == one["false_negatives"]
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-5)
    # Adam divides gradients by their size, which magnifies rounding where they are next to nothing.
    difference = np.abs(np.array(several["weights"]) - np.array(one["weights"]))
    assert np.percentile(difference, 99) < 1e-6
