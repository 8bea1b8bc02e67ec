"""The parts of the benchmark: who takes part, in which tasks, and what the answers mean."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measurements import Measurement
from benchmarks.parts import encoding, litert, starting, training
from benchmarks.parts.setting import Setting

# Name on the command line to the function that measures it.
PARTS: dict[str, Callable[[Setting], list[Measurement]]] = {
    "train": training.unsupervised,
    "encode": encoding.encode,
    "train-triplets": training.supervised,
    "start": starting.start,
    "litert": litert.litert,
    "train-bert-base": training.bert_base,
    "train-xlm-roberta-base": training.xlm_roberta_base,
}
# What `--quick` leaves out.
SLOW = ("train-triplets", "start", "litert", "train-bert-base", "train-xlm-roberta-base")
