"""t-SNE in a process of its own: it takes a minute, reports its progress, and holds up no other request.

Run as a program it takes two file names: it reads the vectors from the first, in NumPy's format, prints scikit-learn's
progress, and writes the points to the second.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from simcse_tf.errors import UserError

_ITERATIONS = 1000


def tsne(vectors: np.ndarray, progress: Callable[[float], None]) -> np.ndarray:
    """Lays vectors out in the plane so that neighbours stay neighbours.

    Args:
        vectors: `(n, dim)`, n > 3.
        progress: Called with the share done, 0 to 1.

    Returns:
        `(n, 2)`.

    Raises:
        UserError: scikit-learn is missing, or the process failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "vectors.npy", Path(folder) / "points.npy"
        np.save(given, vectors)
        command = [sys.executable, "-m", "simcse_tf.demo.tsne", str(given), str(made)]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        said: list[str] = []
        with subprocess.Popen(command, **output) as process:
            try:
                for line in process.stdout or ():
                    said.append(line)
                    match = re.search(r"Iteration (\d+)", line)
                    if match:
                        progress(int(match[1]) / _ITERATIONS)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise UserError(f"t-SNE failed: {''.join(said).strip()[-300:]}")
        return np.load(made)


def _main(given: str, made: str) -> None:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        sys.exit("it needs scikit-learn: pip install 'simcse-tf[demo]'")
    vectors = np.load(given)
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # scikit-learn scales PCA's points to a fixed spread: those of equal vectors have none, and become NaN.
    init = "pca" if np.ptp(vectors, axis=0).any() else "random"
    model = TSNE(metric="cosine", init=init, perplexity=perplexity, max_iter=_ITERATIONS, random_state=0, verbose=2)
    np.save(made, model.fit_transform(vectors))


if __name__ == "__main__":
    _main(*sys.argv[1:])
