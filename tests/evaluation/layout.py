"""Complete made-up STS sets in SentEval's layout."""

from __future__ import annotations

import numpy as np

from simcse_tf.evaluation import sts


def write_task(root, task, *, blanks=0):
    """A complete set with made-up sentences in SentEval's layout; returns (a, b, gold) per subset."""
    spec = sts.TASKS[task]
    rng = np.random.default_rng(len(task) + spec.pairs)
    content = {}
    for subset, n in spec.subsets.items():
        words = rng.integers(0, 50, size=(n, 2, 6))
        a, b = ([" ".join(f"w{w}x" for w in row[side]) for row in words] for side in (0, 1))
        gold = np.round(rng.uniform(spec.lowest, 5, size=n), 1)
        content[subset] = (a, b, gold)
        paths = spec.paths(root, subset)
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        if task.startswith("STSB"):
            lines = [
                f"main\tall\t{i}\t{i:04}\t{g}\t{x}\t{y}" for i, (x, y, g) in enumerate(zip(a, b, gold, strict=True))
            ]
            paths[0].write_text("\n".join(lines) + "\n", "utf-8")
        elif task == "SICK-R":
            lines = [f"{i}\t{x}\t{y}\t{g}\tNEUTRAL" for i, (x, y, g) in enumerate(zip(a, b, gold, strict=True))]
            header = "pair_ID\tsentence_A\tsentence_B\trelatedness_score\tentailment_judgment"
            paths[0].write_text("\n".join([header, *lines]) + "\n", "utf-8")
        else:
            inputs = [f"{x}\t{y}" for x, y in zip(a, b, strict=True)] + ["never graded\tnor this"] * blanks
            paths[0].write_text("\n".join(inputs) + "\n", "utf-8")
            paths[1].write_text("\n".join([*map(str, gold), *[""] * blanks]) + "\n", "utf-8")
    return content


def replace_line(path, number, line):
    lines = path.read_text("utf-8").split("\n")
    lines[number - 1] = line
    path.write_text("\n".join(lines), "utf-8")
