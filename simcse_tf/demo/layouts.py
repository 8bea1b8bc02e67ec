"""Vectors in the plane: PCA at once; t-SNE and UMAP in a process of their own, which reports how far it is.

They take a minute or several, and hold up no other request. Run as a program, `python -m simcse_tf.demo.layouts METHOD
VECTORS POINTS` reads and writes files in NumPy's format.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from simcse_tf.errors import UserError

# Methods, and what people should know of them.
CHOICES = {
    "pca": "PCA, at once",
    "umap": "UMAP, keeps neighbours together",
    "tsne": "t-SNE, the same for up to 10,000",
}
NAMES = {"pca": "PCA", "umap": "UMAP", "tsne": "t-SNE"}
# t-SNE's time grows faster than the number of sentences: 10,000 take minutes.
MOST_TSNE = 10_000
_ITERATIONS = 1000


def methods() -> list[str]:
    """Those that are installed: the names `lay_out` takes."""
    return [name for name in NAMES if name != "umap" or find_spec("umap")]


def check(method: str, count: int) -> None:
    """Checks that so many vectors can be laid out.

    Raises:
        UserError: The method is unknown or not installed, or there are too many vectors for it.
    """
    if method == "umap" and "umap" not in methods():
        raise UserError("method 'umap' needs umap-learn: pip install 'simcse-tf[umap]'")
    if method not in methods():
        raise UserError(f"method '{str(method)[:60]}': expected one of {', '.join(methods())}.")
    if method == "tsne" and count > MOST_TSNE:
        raise UserError(f"t-SNE takes at most {MOST_TSNE:,} sentences here. Choose another layout.")


def lay_out(vectors: np.ndarray, method: str, progress: Callable[[float, str], None]) -> np.ndarray:
    """Places vectors in the plane, near where they are near.

    Args:
        vectors: `(n, dim)`, n > 3.
        method: `pca`; `tsne` or `umap`, which keep neighbours together.
        progress: Called with the share done, 0 to 1, and what is being done.

    Returns:
        `(n, 2)`, the same each time.

    Raises:
        UserError: What `check` says, or the method failed.
    """
    check(method, len(vectors))
    doing = f"{NAMES[method]} of {len(vectors):,} sentences"
    progress(0, doing)
    return _pca(vectors) if method == "pca" else _elsewhere(vectors, method, lambda share: progress(share, doing))


def aligned(points: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Points turned or mirrored, moved and enlarged so that each is near its partner (Procrustes).

    Args:
        points: `(n, 2)`.
        to: `(n, 2)`, their partners.
    """
    centred, goal = points - points.mean(axis=0), to - to.mean(axis=0)
    left, stretch, right = np.linalg.svd(centred.T @ goal)
    scale = stretch.sum() / max(float((centred**2).sum()), 1e-12)
    return scale * centred @ (left @ right) + to.mean(axis=0)


def _pca(vectors: np.ndarray) -> np.ndarray:
    """The two directions along which the vectors differ most; scikit-learn fixes the signs, so that a map stays."""
    from sklearn.decomposition import PCA

    # Equal vectors have no variance, of which each direction could have a share.
    with np.errstate(invalid="ignore"):
        return PCA(2, svd_solver="covariance_eigh").fit_transform(vectors)


def _elsewhere(vectors: np.ndarray, method: str, progress: Callable[[float], None]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "vectors.npy", Path(folder) / "points.npy"
        np.save(given, vectors)
        command = [sys.executable, "-m", "simcse_tf.demo.layouts", method, str(given), str(made)]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        said: list[str] = []
        with subprocess.Popen(command, **output) as process:
            try:
                for line in process.stdout or ():
                    said.append(line)
                    # t-SNE numbers its iterations; UMAP counts epochs.
                    if match := re.search(r"Iteration (\d+)", line):
                        progress(int(match[1]) / _ITERATIONS)
                    elif match := re.search(r"completed\s+(\d+)\s*/\s*(\d+) epochs|(\d+)/(\d+) \[", line):
                        done, total = (int(number) for number in match.groups() if number)
                        progress(done / total)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise UserError(f"{NAMES[method]} failed: {''.join(said).strip()[-300:]}")
        return np.load(made)


def _tsne(vectors: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # scikit-learn scales PCA's points to a fixed spread: those of equal vectors have none, and become NaN.
    init = "pca" if np.ptp(vectors, axis=0).any() else "random"
    model = TSNE(metric="cosine", init=init, perplexity=perplexity, max_iter=_ITERATIONS, random_state=0, verbose=2)
    return model.fit_transform(vectors)


def _umap(vectors: np.ndarray) -> np.ndarray:
    from umap import UMAP  # pyright: ignore[reportMissingImports]  (the extra is optional)

    # Few or equal vectors have no spectrum to begin with.
    init = "spectral" if len(np.unique(vectors, axis=0)) > 15 else "random"
    model = UMAP(
        n_neighbors=min(15, len(vectors) - 1), min_dist=0.1, metric="cosine", init=init, random_state=0, verbose=True
    )
    return np.asarray(model.fit_transform(vectors))


def _main(method: str, given: str, made: str) -> None:
    try:
        points = {"tsne": _tsne, "umap": _umap}[method](np.load(given))
    except ImportError as e:
        sys.exit(f"{e.name} is missing: pip install 'simcse-tf[demo,umap]'")
    np.save(made, points)


if __name__ == "__main__":
    _main(*sys.argv[1:])
