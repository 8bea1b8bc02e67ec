"""The SimCSE recipe as one writes it in PyTorch with Hugging Face transformers; and PyTorch's matrix product."""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from benchmarks.contenders import common
from benchmarks.workers import StepTurns, Turns


def train(turns: Turns, settings: dict[str, Any], compiled: bool = False) -> None:
    """One pass over all views, [CLS], MLP, InfoNCE; clipping and fused AdamW; padded to the batch's longest text."""
    torch.set_num_threads(settings["threads"])
    tokenizer = AutoTokenizer.from_pretrained(settings["model"])
    model = AutoModel.from_pretrained(
        settings["model"],
        attn_implementation="sdpa",
        add_pooling_layer=False,
        hidden_dropout_prob=settings["dropout"],
        attention_probs_dropout_prob=settings["dropout"],
    ).train()
    head = _head(model.config.hidden_size)
    parameters = [*model.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, common.LEARNING_RATE, eps=1e-8, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, common.TOTAL_STEPS)
    rows, n = common.rows(settings["data"]), settings["batch_size"]
    forward = torch.compile(model, dynamic=True) if compiled else model
    steps = StepTurns(turns)
    steps.begin()
    for step in range(common.TOTAL_STEPS):
        start = step % (len(rows) // n) * n
        views = list(zip(*rows[start : start + n], strict=True))
        if len(views) == 1:
            views *= 2
        texts = [text for view in views for text in view]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=common.MAX_LENGTH, return_tensors="pt")
        vectors = torch.nn.functional.normalize(head(forward(**batch).last_hidden_state[:, 0]))
        logits = vectors[:n] @ vectors[n:].T / common.TEMPERATURE
        loss = torch.nn.functional.cross_entropy(logits, torch.arange(n))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, common.CLIP_NORM)
        optimizer.step()
        schedule.step()
        steps.after_step(loss.item())


def train_compiled(turns: Turns, settings: dict[str, Any]) -> None:
    """As `train`, through torch.compile."""
    train(turns, settings, compiled=True)


def gemm(turns: Turns, settings: dict[str, Any]) -> None:
    """PyTorch's matrix product."""
    torch.set_num_threads(settings["threads"])
    turns.serve({"gemm": lambda: common.gemm_rate(torch.randn, torch.matmul)})


def _head(dim: int) -> torch.nn.Module:
    linear = torch.nn.Linear(dim, dim)
    kernel, bias = common.head(dim)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
        linear.bias.copy_(torch.from_numpy(bias))
    return torch.nn.Sequential(linear, torch.nn.Tanh())
