"""The texts of the benchmark: the real ones from ../shared/data, or generated ones of the same lengths."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workers import ROOT

# Public data that is kept beside the repository; see its README.
SHARED = ROOT.parent / "shared" / "data"
# How many words the real texts have, from the shortest to the longest in steps of a tenth.
_WIKI = (1, 4, 8, 11, 13, 16, 18, 21, 25, 32, 100)
_PREMISES = (2, 8, 10, 11, 12, 14, 15, 18, 20, 24, 59)
_HYPOTHESES = (2, 5, 5, 6, 7, 7, 8, 8, 9, 11, 37)
_STS = (3, 6, 7, 8, 9, 10, 12, 14, 16, 19, 29)
_LONG_TEXTS = 256


@dataclass(frozen=True)
class Texts:
    """Where the texts are."""

    # Whether they are the real ones.
    real: bool
    # 11,914 Wikipedia sentences, one a line.
    wiki: Path
    # 2,954 triplets with a header.
    triplets: Path
    # SentEval's layout, with STS-B dev: 1,500 pairs.
    sts_dir: Path
    # The 3,000 sentences of STS-B dev, one a line.
    sts: Path
    # The longest Wikipedia sentences, one a line.
    long: Path


def prepare(build: Path) -> Texts:
    """Finds the real texts, or generates some; writes those that are derived under `build`."""
    real = SHARED.is_dir()
    if not real:
        _generate(build / "generated")
    data = SHARED if real else build / "generated"
    texts = Texts(
        real,
        data / "wiki_sentences.txt",
        data / "nli_triplets.csv",
        data / "sts",
        build / "sts.txt",
        build / "long.txt",
    )
    rows = _benchmark(texts.sts_dir).read_text("utf-8").rstrip("\n").split("\n")
    sentences = [sentence for row in rows for sentence in row.split("\t")[5:7]]
    # Each call of a latency measurement takes the next sentences: in an order that is not the file's, which goes by
    # kind of text.
    random.Random(0).shuffle(sentences)
    _write(texts.sts, sentences)
    _write(texts.long, sorted(texts.wiki.read_text("utf-8").split("\n"), key=len)[-_LONG_TEXTS:])
    return texts


def _generate(directory: Path) -> None:
    """Words of the bundled corpus in random order: nonsense, but tokenised and as long as the real texts."""
    rng = random.Random(0)
    corpus = ROOT / "simcse_tf/data/corpora"
    words = [w for path in sorted(corpus.glob("*.txt")) for w in path.read_text("utf-8").replace('"', "").split()]

    def text(lengths: tuple[int, ...]) -> str:
        tenth = rng.randrange(len(lengths) - 1)
        return " ".join(rng.choices(words, k=rng.randint(lengths[tenth], lengths[tenth + 1])))

    benchmark = _benchmark(directory / "sts")
    benchmark.parent.mkdir(parents=True, exist_ok=True)
    _write(directory / "wiki_sentences.txt", [text(_WIKI) for _ in range(11914)])
    with (directory / "nli_triplets.csv").open("w", encoding="utf-8", newline="") as f:
        table = csv.writer(f)
        table.writerow(["sent0", "sent1", "hard_neg"])
        table.writerows([text(_PREMISES), text(_HYPOTHESES), text(_HYPOTHESES)] for _ in range(2954))
    pairs = [f"main\tnone\tnone\t0\t{rng.uniform(0, 5):.2f}\t{text(_STS)}\t{text(_STS)}" for _ in range(1500)]
    _write(benchmark, pairs)


def _benchmark(sts_dir: Path) -> Path:
    return sts_dir / "STS" / "STSBenchmark" / "sts-dev.csv"


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), "utf-8")
