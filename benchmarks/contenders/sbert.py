"""sentence-transformers: its trainer with MultipleNegativesRankingLoss, its `encode`, its evaluator."""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from benchmarks.contenders import common
from benchmarks.workers import StepTurns, Turns


def train(turns: Turns, settings: dict[str, Any]) -> None:
    """The same model (SimCSE's MLP is a Dense module), loss, data and optimizer in the library's own trainer."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    torch.set_num_threads(settings["threads"])
    model = _simcse(settings)
    columns = [list(column) for column in zip(*common.rows(settings["data"]), strict=True)]
    if len(columns) == 1:
        columns *= 2
    names = ("anchor", "positive", "negative")[: len(columns)]
    loss = MultipleNegativesRankingLoss(model, scale=1 / common.TEMPERATURE)
    losses: list[torch.Tensor] = []
    loss.register_forward_hook(lambda module, inputs, output: losses.append(output.detach()))
    steps = StepTurns(turns, {"evaluate": lambda sts_dir: _evaluate(model, sts_dir)})

    class Rounds(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            steps.begin()

        def on_step_end(self, args, state, control, **kwargs):
            steps.after_step(losses.pop().item())

    with tempfile.TemporaryDirectory(prefix="simcse_tf_bench_") as directory:
        arguments = training_arguments(
            directory,
            batch_size=settings["batch_size"],
            max_steps=common.TOTAL_STEPS,
            learning_rate=common.LEARNING_RATE,
            max_grad_norm=common.CLIP_NORM,
        )
        dataset = Dataset.from_dict(dict(zip(names, columns, strict=True)))
        SentenceTransformerTrainer(model, arguments, train_dataset=dataset, loss=loss, callbacks=[Rounds()]).train()


def training_arguments(directory: str, *, batch_size: int, **settings: Any) -> Any:
    """What the library's trainer is told: the fastest it has, rows in the order of the data, nothing beside training.

    Args:
        directory: Where it may write.
        batch_size: Rows of a step.
        **settings: `max_steps`, `learning_rate` (which falls linearly to 0) and the like.
    """
    from sentence_transformers import SentenceTransformerTrainingArguments
    from sentence_transformers.base.sampler import DefaultBatchSampler
    from torch.utils.data import SequentialSampler

    return SentenceTransformerTrainingArguments(
        output_dir=directory,
        per_device_train_batch_size=batch_size,
        lr_scheduler_type="linear",
        optim="adamw_torch_fused",
        batch_sampler=lambda dataset, **kwargs: DefaultBatchSampler(SequentialSampler(dataset), **kwargs),
        dataloader_drop_last=True,
        use_cpu=True,
        save_strategy="no",
        eval_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **settings,
    )


def _simcse(settings: dict[str, Any]) -> SentenceTransformer:
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    transformer = Transformer(
        settings["model"],
        max_seq_length=common.MAX_LENGTH,
        model_kwargs={"attn_implementation": "sdpa", "add_pooling_layer": False},
        config_kwargs=dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), settings["dropout"]),
    )
    dim = transformer.get_embedding_dimension()
    kernel, bias = (torch.from_numpy(x) for x in common.head(dim))
    dense = Dense(dim, dim, activation_function=torch.nn.Tanh(), init_weight=kernel.T.contiguous(), init_bias=bias)
    return SentenceTransformer(modules=[transformer, Pooling(dim, "cls"), dense], device="cpu")


def _evaluate(model: SentenceTransformer, sts_dir: str) -> dict[str, Any]:
    """The library's evaluator over STS-B dev, as its trainer calls it."""
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    with (Path(sts_dir) / "STS/STSBenchmark/sts-dev.csv").open(encoding="utf-8") as f:
        rows = list(csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    grades = [float(row[4]) / 5 for row in rows]
    began = time.perf_counter()
    evaluator = EmbeddingSimilarityEvaluator(
        [row[5] for row in rows], [row[6] for row in rows], grades, batch_size=64, write_csv=False
    )
    scores = evaluator(model)
    return {"seconds": time.perf_counter() - began, "score": 100 * scores[evaluator.primary_metric]}


def encode(turns: Turns, settings: dict[str, Any]) -> None:
    """`SentenceTransformer.encode`, which sorts by length."""
    torch.set_num_threads(settings["threads"])
    model = SentenceTransformer(settings["model"], device="cpu", model_kwargs={"attn_implementation": "sdpa"})

    def all_texts(texts):
        return model.encode(texts, batch_size=settings["batch_size"], show_progress_bar=False)

    turns.serve(common.encoding(all_texts, all_texts))
