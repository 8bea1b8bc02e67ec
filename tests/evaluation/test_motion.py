"""The projection in which watched texts move, and the means that stand beside it."""

import json

import numpy as np
import pytest

from simcse_tf import runs
from simcse_tf.errors import UserError
from simcse_tf.evaluation.motion import of_run, picture, project


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def vectors():
    """Of 12 texts in 8 dimensions at 4 steps, each a little further."""
    rng = np.random.default_rng(0)
    start, way = rng.normal(size=(12, 8)), rng.normal(size=(12, 8))
    return [unit(start + share * way) for share in (0, 0.3, 0.6, 1)]


@pytest.fixture
def watching(tmp_path):
    """A function that writes what a run has seen of its texts."""

    def write(steps, rows, texts=None):
        (tmp_path / runs.WATCHED).mkdir(exist_ok=True)
        texts = texts or [f"text {i}" for i in range(len(next(iter(steps.values()))))]
        (tmp_path / runs.WATCHED / runs.WATCHED_TEXTS).write_text(runs.Watched(texts, rows).to_json(), "utf-8")
        for step, vectors in steps.items():
            np.save(tmp_path / runs.WATCHED / f"step-{step:08d}.npy", vectors.astype(np.float16))
        return tmp_path

    return write


def test_equal_vectors_stay_where_they_are(vectors):
    points = project([vectors[0], vectors[1], vectors[0]])
    np.testing.assert_allclose(points[0], points[2], atol=1e-6)
    assert np.abs(points[0] - points[1]).max() > 0.1


def test_distances_in_the_plane_are_at_most_those_in_space(vectors):
    points = project(vectors)
    for step, each in enumerate(vectors):
        flat = np.linalg.norm(points[step][:, None] - points[step][None], axis=-1)
        full = np.linalg.norm(each[:, None] - each[None], axis=-1)
        assert (flat <= full + 1e-6).all()


def test_a_new_last_step_does_not_turn_the_first_one(vectors):
    alone = project(vectors[:1])[0]
    for last in range(1, 4):
        first = project(vectors[: last + 1])[0]
        # The best rotation onto what it was: none.
        left, _, right = np.linalg.svd((first - first.mean(axis=0)).T @ (alone - alone.mean(axis=0)))
        np.testing.assert_allclose(left @ right, np.eye(2), atol=1e-5)


def test_the_means_are_of_positives_and_of_texts_of_other_rows(watching):
    e = np.eye(3)
    before, after = np.stack([e[0], e[1], e[2], e[2], e[0]]), np.stack([e[0], e[0], e[1], e[1], -e[0]])
    # Two rows, one with a hard negative, which is neither.
    found = of_run(watching({0: before, 5: after}, [[0, 1, 4], [2, 3]]))
    assert found.steps == [0, 5]
    assert found.together == [0.5, 1.0]
    assert found.apart == [0.0, 0.0]


def test_texts_that_stand_alone_have_one_mean_and_leave_a_trail(watching, vectors):
    found = of_run(watching(dict(enumerate(vectors)), []))
    assert found.together == []
    cosines = vectors[3] @ vectors[3].T
    assert found.apart[3] == pytest.approx((cosines.sum() - 12) / 132, abs=1e-3)
    assert picture(found).count('class="trail"') == 12


def test_a_long_run_is_shown_by_60_evaluations(watching, vectors):
    found = of_run(watching({step: vectors[step % 4] for step in range(0, 700, 7)}, []))
    assert len(found.steps) == 60
    assert (found.steps[0], found.steps[-1]) == (0, 693)


def test_everything_is_inside_the_picture_on_one_scale(watching, vectors):
    found = of_run(watching(dict(enumerate(vectors)), []))
    points, plain = np.array(found.points), project([each.astype(np.float16).astype(np.float32) for each in vectors])
    assert points.min() >= 0
    assert (points.max(axis=(0, 1)) <= [1000, 640]).all()
    scale = np.ptp(points, axis=(0, 1)) / np.ptp(plain, axis=(0, 1))
    assert scale[0] == pytest.approx(scale[1], rel=0.01)


def test_texts_are_shown_not_run(watching, vectors):
    texts = ['<img src=x onerror="alert(1)">', "${alert(1)} {{x}} `"] + [f"text {i}" for i in range(10)]
    shown = picture(of_run(watching(dict(enumerate(vectors)), [[0, 1]], texts)))
    assert "<img" not in shown
    assert not set("{$`") & set(shown)


def test_before_the_first_evaluation_there_is_nothing(tmp_path, watching):
    assert of_run(tmp_path) is None
    assert of_run(watching({0: np.eye(2)}, [])).steps == [0]
    (tmp_path / runs.WATCHED / runs.WATCHED_TEXTS).write_text(json.dumps({"texts": []}), "utf-8")
    with pytest.raises(UserError, match=r"texts\.json: damaged"):
        of_run(tmp_path)
