"""What examples/docs_search.py gains, beside sentence-transformers: `python -m benchmarks.docs_search`.

Both train the same encoder on the same pairs in the same order, with the same loss, batch, steps, learning rate and
dropout, and the same function judges both, on the example's test pairs and on STS-B. Needs the environment that `make
bench` makes. Every row is a process of its own, in turns, and is kept in --build: a benchmark that was interrupted
continues with the rows that are missing. About 40 minutes on 2 quiet cores.
"""

# sentence-transformers is installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from typing import Any

from benchmarks.measurements import OURS
from benchmarks.workers import ROOT, environment
from simcse_tf import open_source, runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.files import write_whole
from simcse_tf.formats import presets

_PEER = "sentence-transformers"
_STS = ROOT.parent / "shared" / "data" / "sts"
_FIGURES = {"recall@1": "recall@1", "mrr@10": "MRR@10", "STSB-test": "STS-B test", "bundled": "bundled pairs"}
_THREADS = 2


def main() -> None:
    """Makes the rows that are missing, and prints the table of all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.docs_search",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--packages", type=Path, nargs="+", default=[Path(sysconfig.get_path("purelib"))])
    parser.add_argument("--sts-dir", default=str(_STS) if _STS.is_dir() else None, help="SentEval's data")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "docs_search", help="corpora, runs and rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        print(json.dumps(_row(**json.loads(given.worker))))
        return

    # All processes inherit it: as many threads for both, on any machine.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:_THREADS])
    rows = []
    for i, seed in enumerate(given.seeds):
        to = given.build / f"{given.steps}-steps-seed-{seed}"
        example = _example()
        if not (to / "documents.txt").is_file():
            example.write_corpus(given.packages, to)
        # In turns, and each is first in its turn: a machine may be slower later.
        for who in (OURS, _PEER) if i % 2 == 0 else (_PEER, OURS):
            kept = to / f"{who}.json"
            if not kept.is_file():
                task = {"who": who, "to": str(to), "steps": given.steps, "seed": seed, "sts_dir": given.sts_dir}
                write_whole(kept, _in_a_process(task))
            rows.append(json.loads(kept.read_text("utf-8")))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(_table(rows))
    path = given.build / f"{given.steps}-steps.json"
    write_whole(path, json.dumps({"cpus": _THREADS, "command": sys.argv, "rows": rows}, indent=1) + "\n")
    print(f"\n{path}")


def _example() -> ModuleType:
    """examples/docs_search.py, which is in no package."""
    spec = importlib.util.spec_from_file_location("docs_search", ROOT / "examples" / "docs_search.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _in_a_process(task: dict[str, Any]) -> str:
    command = [sys.executable, "-m", "benchmarks.docs_search", "--worker", json.dumps(task)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.splitlines()[-1] + "\n"


def _row(who: str, to: str, steps: int, seed: int, sts_dir: str | None) -> dict[str, Any]:
    """The scores of one run, and the seconds that its steps took, the first one included."""
    example = _example()
    config = train.parse(example.training_flags(Path(to), "minilm", steps, seed))
    config = dataclasses.replace(config, export_to=None, report=False, resume=False, overwrite=True)
    seconds, encoder = (_ours if who == OURS else _peer)(config)
    return {
        "who": who,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 1),
        "before": example.scores_of(example.starting_encoder("minilm"), Path(to), sts_dir),
        "after": example.scores_of(encoder, Path(to), sts_dir),
    }


def _ours(config: TrainConfig) -> tuple[float, Any]:
    """As `python -m simcse_tf.train`; its evaluations, which the peer has not, are not counted."""
    from rich.console import Console

    from simcse_tf import SentenceEncoder
    from simcse_tf.training import loop, plan, simcse

    fit, took = simcse.SimCSE.fit, []

    def timed_fit(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        history = fit(*args, **kwargs)
        took.append(time.perf_counter() - began)
        return history

    simcse.SimCSE.fit = timed_fit
    loop.train(plan.plan(config), Console(stderr=True))
    assert config.output_dir is not None
    evaluations = sum(line.get("evaluation_seconds", 0) for line in runs.read_metrics(config.output_dir))
    return took[0] - evaluations, SentenceEncoder.from_preset(str(config.output_dir))


def _peer(config: TrainConfig) -> tuple[float, Any]:
    """sentence-transformers' trainer with MultipleNegativesRankingLoss and the same settings."""
    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    from benchmarks.contenders.sbert import training_arguments
    from simcse_tf.data.pipeline import shuffled

    torch.set_num_threads(_THREADS)
    torch.manual_seed(config.seed)
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), config.dropout)
    model = SentenceTransformer(
        str(presets.locate("minilm").directory),
        device="cpu",
        model_kwargs={"attn_implementation": "sdpa"},
        config_kwargs=dropout,
    )
    longest, model.max_seq_length = model.max_seq_length, config.max_length
    # As ours are shuffled, in the first epoch.
    rows = shuffled(open_source(config.data).rows(), buffer=config.shuffle_buffer, seed=config.seed, epoch=0)
    columns = zip(*rows, strict=True)
    dataset = Dataset.from_dict(
        {name: list(texts) for name, texts in zip(("anchor", "positive"), columns, strict=True)}
    )
    with tempfile.TemporaryDirectory() as directory:
        arguments = training_arguments(
            directory,
            batch_size=config.batch_size,
            max_steps=config.max_steps,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip_norm,
            seed=config.seed,
        )
        trainer = SentenceTransformerTrainer(
            model,
            arguments,
            train_dataset=dataset,
            loss=MultipleNegativesRankingLoss(model, scale=1 / config.temperature),
        )
        began = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - began
    model.max_seq_length = longest
    return seconds, model


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over the seeds."""
    names = [name for name in _FIGURES if name in rows[0]["after"]]
    lines = [f"| | {' | '.join(_FIGURES[name] for name in names)} | seconds |", "|---|" + "---:|" * (len(names) + 1)]
    cells = [_over_seeds([row["before"][name] for row in rows]) for name in names]
    lines.append(f"| before | {' | '.join(cells)} | |")
    for who in (OURS, _PEER):
        of_it = [row for row in rows if row["who"] == who]
        cells = [_over_seeds([row["after"][name] for row in of_it]) for name in names]
        lines.append(f"| {who} | {' | '.join(cells)} | {_over_seeds([row['seconds'] for row in of_it])} |")
    return "\n".join(lines)


def _over_seeds(figures: list[float]) -> str:
    return f"{mean(figures):.2f} ± {stdev(figures) if len(figures) > 1 else 0:.2f}"


if __name__ == "__main__":
    main()
