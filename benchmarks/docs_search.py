"""What examples/docs_search.py gains, beside sentence-transformers: `python -m benchmarks.docs_search`.

Both train the same encoder on the same pairs in the same order, with the same loss, batch, steps, learning rate and
dropout, and the same function judges both, on the example's test pairs and on STS-B. Needs the environment that `make
bench` makes. Every row is a process of its own, in turns, and is kept in --build: a benchmark that was interrupted
continues with the rows that are missing. About 40 minutes on 2 quiet cores.

`--ways` names other ways to train on the same files: `mined` adds a hard negative to each pair (simcse_tf.mine);
`crops` takes two crops of each whole docstring, without its summary, for a pair, and `dropout` each such crop twice.
"""

# sentence-transformers is installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import simcse_tf
from benchmarks.measurements import OURS, over_seeds
from benchmarks.texts import SHARED
from benchmarks.workers import ROOT, environment
from simcse_tf import cli, mine, open_source, quiet, runs, train
from simcse_tf.config import TrainConfig
from simcse_tf.data.documents import sentences
from simcse_tf.files import write_whole
from simcse_tf.formats import presets

_PEER = "sentence-transformers"
_STS = SHARED / "sts"
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
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--ways", nargs="+", choices=_WAYS, default=[OURS, _PEER])
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
        example = load_example()
        if not (to / "documents.txt").is_file():
            example.write_corpus(given.packages, to)
        # In turns, and each is first in its turn: a machine may be slower later.
        for who in given.ways if i % 2 == 0 else reversed(given.ways):
            kept = to / f"{who}.json"
            if not kept.is_file():
                task = {"who": who, "to": str(to), "steps": given.steps, "seed": seed, "sts_dir": given.sts_dir}
                task["packages"] = [str(folder) for folder in given.packages]
                write_whole(kept, _in_a_process(task))
            rows.append(json.loads(kept.read_text("utf-8")))
            print(json.dumps(rows[-1]), file=sys.stderr)
    print(_table(rows))
    path = given.build / f"{given.steps}-steps-{'-'.join(given.ways)}.json"
    write_whole(path, json.dumps({"cpus": _THREADS, "command": sys.argv, "rows": rows}, indent=1) + "\n")
    print(f"\n{path}")


def load_example() -> ModuleType:
    """The functions of examples/docs_search.py, which is in no package."""
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


def _row(who: str, to: str, steps: int, seed: int, sts_dir: str | None, packages: list[str]) -> dict[str, Any]:
    """The scores of one run, and the seconds that its steps took, the first one included."""
    example = load_example()
    config = train.parse(example.training_flags(Path(to), "minilm", steps, seed))
    config = dataclasses.replace(config, export_to=None, report=False, resume=False, overwrite=True)
    seconds, encoder = _WAYS[who](config, packages)
    test, tasks = Path(to) / "test.csv", ["STSB-test" if sts_dir else "bundled"]
    return {
        "who": who,
        "seed": seed,
        "steps": steps,
        "seconds": round(seconds, 1),
        "before": scores(
            simcse_tf.SentenceEncoder.from_preset("minilm", pooling="avg", head="none"), test, sts_dir, tasks
        ),
        "after": scores(encoder, test, sts_dir, tasks),
    }


def scores(encoder: Any, test: Path, sts_dir: Path | str | None, tasks: Sequence[str]) -> dict[str, float]:
    """Figures by name: of search among the documents of `test`, and of the tasks."""
    judgement = simcse_tf.evaluate_encoder(encoder, on=test, sts_dir=sts_dir, tasks=tasks)
    ((_, figures),) = judgement.on
    return figures | judgement.scores


def trained(config: TrainConfig) -> tuple[Any, float]:
    """Trains as `python -m simcse_tf.train` does.

    Returns:
        The model after the last step, and the seconds that training took without its evaluations.
    """
    from rich.console import Console

    with cli.lean_imports():
        quiet.import_tensorflow()
        from simcse_tf.training import loop, plan, simcse

    fit, models, took = simcse.SimCSE.fit, [], []

    def timed_fit(model: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        history = fit(model, *args, **kwargs)
        took.append(time.perf_counter() - began)
        models.append(model)
        return history

    console = Console(stderr=True)
    with mock.patch.object(simcse.SimCSE, "fit", timed_fit):
        loop.train(plan.plan(config), console, open_teacher=train.locate_teacher(config, console))
    assert config.output_dir is not None
    evaluations = sum(line.get("evaluation_seconds", 0) for line in runs.read_metrics(config.output_dir))
    return models[0], took[0] - evaluations


def _ours(config: TrainConfig, packages: list[str]) -> tuple[float, Any]:
    """As `python -m simcse_tf.train`; its evaluations, which the peer has not, are not counted."""
    return trained(config)[1], simcse_tf.SentenceEncoder.from_preset(str(config.output_dir))


def _mined(config: TrainConfig, packages: list[str]) -> tuple[float, Any]:
    """Ours, with the hard negatives that the encoder before training finds, as `mine` does by default."""
    pairs = Path(config.data)
    triplets = pairs.with_name("mined.csv")
    mine.main([str(pairs), "--model", config.preset, "--to", str(triplets), "--resume"])
    return _ours(_elsewhere(config, triplets), packages)


def _crops(config: TrainConfig, packages: list[str]) -> tuple[float, Any]:
    """Ours, on pairs of crops, with the settings that docs/training.md recommends for them."""
    own = {"dropout": TrainConfig.dropout, "learning_rate": 3e-5}
    return _ours(_elsewhere(config, f"documents:{_whole(config, packages)}", **own), packages)


def _dropout(config: TrainConfig, packages: list[str]) -> tuple[float, Any]:
    """Ours, on the same documents cut into texts as long as crops, each encoded twice under dropout."""
    whole = _whole(config, packages)
    texts = whole.with_name("crops.txt")
    if not texts.is_file():
        size, found = config.crop_sentences, []
        for document in whole.read_text("utf-8").splitlines():
            cut = sentences(document)
            found += [" ".join(cut[i : i + size]) for i in range(0, len(cut) - size + 1, size)]
        write_whole(texts, "\n".join(found) + "\n")
    # With the settings that docs/training.md recommends for it; those of pairs teach it nothing.
    own = {"dropout": TrainConfig.dropout, "temperature": 0.1, "learning_rate": 3e-5}
    return _ours(_elsewhere(config, texts, **own), packages)


def _elsewhere(config: TrainConfig, data: Path | str, **settings: float) -> TrainConfig:
    """The same with other data and settings, in a directory of its own."""
    assert config.output_dir is not None
    name = Path(str(data)).stem
    to = config.output_dir.with_name(f"run-{name}")
    return dataclasses.replace(config, data=str(data), output_dir=to, **settings)


def _whole(config: TrainConfig, packages: list[str]) -> Path:
    """A file of the docstrings in the training part's files, without summaries, one a line, long enough for crops."""
    path = Path(config.data).with_name("whole.txt")
    if path.is_file():
        return path
    example, found = load_example(), {}
    for folder in map(Path, packages):
        for file in sorted(folder.rglob("*.py")):
            name = file.relative_to(folder).as_posix()
            if example.part_of(name) != "train":
                continue
            for docstring in example.docstrings_of(folder, file):
                blocks = [example.plain(block) for block in re.split(r"\n\s*\n", docstring[1])[1:]]
                text = " ".join(block for block in blocks if example.is_english(block, least=4, most=150))
                if len(sentences(text)) >= 2 * config.crop_sentences - config.crop_overlap:
                    found[text] = None
    write_whole(path, "\n".join(found) + "\n")
    return path


def _peer(config: TrainConfig, packages: list[str]) -> tuple[float, Any]:
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


_WAYS = {OURS: _ours, _PEER: _peer, "mined": _mined, "crops": _crops, "dropout": _dropout}


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown: mean and standard deviation over the seeds."""
    names = [name for name in _FIGURES if name in rows[0]["after"]]
    lines = [f"| | {' | '.join(_FIGURES[name] for name in names)} | seconds |", "|---|" + "---:|" * (len(names) + 1)]
    cells = [over_seeds([row["before"][name] for row in rows]) for name in names]
    lines.append(f"| before | {' | '.join(cells)} | |")
    for who in dict.fromkeys(row["who"] for row in rows):
        of_it = [row for row in rows if row["who"] == who]
        cells = [over_seeds([row["after"][name] for row in of_it]) for name in names]
        lines.append(f"| {who} | {' | '.join(cells)} | {over_seeds([row['seconds'] for row in of_it])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
