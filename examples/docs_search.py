"""Search in the documentation of the Python packages installed here, by an encoder that is trained on it in minutes.

    python examples/docs_search.py
    python examples/docs_search.py "how do I resample a time series"

The first command makes pairs of docstrings: the summary is what somebody might ask for; the name with the first
paragraph below the summary is what should be found. It trains MiniLM on most of the pairs, measures recall before and
after on those of files that it was not trained on, and makes an index of all. The second command has only to answer.
What is there already is not made again; a run that was interrupted continues. Needs no network; needs the extras
`index` and `report`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import importlib.util
import json
import re
import shlex
import sys
import sysconfig
import textwrap
import warnings
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

import simcse_tf
from simcse_tf import UserError, cli, evaluate, train

RECIPE = "--pooling avg --head none --mask-false-negatives --batch-size 64 --max-length 64"
RECIPE += " --learning-rate 1e-4 --dropout 0"
FEWEST = 20
GENERAL = {"STSB-test": "STS-B test, Spearman", "bundled": "bundled pairs, Spearman"}

console = Console(stderr=True, highlight=False, soft_wrap=True)


def main(arguments: list[str]) -> None:
    """Each step is left out if what it makes is there."""
    flags = parse(arguments)
    if importlib.util.find_spec("faiss") is None:
        raise UserError("an index needs faiss: pip install 'simcse-tf[index]'")
    if not has_corpus(flags):
        write_corpus(flags.packages, flags.to)
        (flags.to / "flags.json").write_text(json.dumps(made_with(flags), indent=2) + "\n", "utf-8")
    # Standard output is for answers.
    with contextlib.redirect_stdout(sys.stderr):
        if not (flags.to / "models" / "docs_search" / "1").is_dir():
            train.main(training_flags(flags.to, flags.preset, flags.steps, flags.seed))
        print_scores(flags.to, flags.sts_dir)
    answer(flags.to, flags.question, flags.top_k)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", nargs="?", help="without one, questions are read from the terminal")
    installed = Path(sysconfig.get_path("purelib"))
    parser.add_argument("--packages", type=Path, nargs="+", default=(installed,), help="folders of Python packages")
    parser.add_argument("--to", type=Path, default=Path("runs/docs_search"), help="where everything is kept")
    parser.add_argument("--preset", default="minilm", help="the encoder to begin with")
    parser.add_argument("--steps", type=int, default=80, help="of training; 80 take about 4 minutes on 2 cores")
    parser.add_argument("--seed", type=int, default=42, help="of training")
    parser.add_argument("--sts-dir", type=Path, help="SentEval's data: score STS-B, not the bundled pairs")
    parser.add_argument("--top-k", type=int, default=5, help="answers to a question")
    return parser.parse_args(arguments)


def made_with(flags: argparse.Namespace) -> dict[str, str]:
    """The flags that decide what is made."""
    decisive = {name: str(getattr(flags, name)) for name in ("preset", "steps", "seed")}
    return {"packages": " ".join(map(str, flags.packages))} | decisive


def has_corpus(flags: argparse.Namespace) -> bool:
    """Whether --to holds the corpus of an earlier command.

    Raises:
        UserError: It does, and that command had other flags; or a folder of packages is none.
    """
    if (flags.to / "flags.json").is_file():
        before = json.loads((flags.to / "flags.json").read_text("utf-8"))
        for name, value in made_with(flags).items():
            if value != before[name]:
                raise UserError(f"--to {flags.to}: was made with --{name} {before[name]}. Give another directory.")
        return True
    for folder in flags.packages:
        if not folder.is_dir():
            raise UserError(f"--packages {folder}: is not a directory. Give one that has Python packages in it.")
    return False


# ---- The corpus ----


class Entry(NamedTuple):
    """A docstring that has a summary and a description."""

    file: str
    name: str
    summary: str
    paragraph: str


def write_corpus(packages: Sequence[Path], to: Path) -> None:
    """Writes train.csv, development.csv, test.csv, and documents.txt for the index."""
    files = [(folder, path) for folder in packages for path in sorted(folder.rglob("*.py"))]
    entries = unambiguous(
        entry for folder, path in track(files, "reading docstrings", console=console) for entry in read(folder, path)
    )
    parts: dict[str, list[Entry]] = {"train": [], "development": [], "test": []}
    for entry in entries:
        parts[part_of(entry.file)].append(entry)
    sizes = {name: len(part) for name, part in parts.items()}
    if min(sizes.values()) < FEWEST:
        raise UserError(f"too few pairs: {sizes}; at least {FEWEST} are needed of each. Give more with --packages.")

    to.mkdir(parents=True, exist_ok=True)
    for name, part in parts.items():
        with (to / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [("query", "document"), *((e.summary, f"{e.name}: {e.paragraph}") for e in part)]
            )
    (to / "documents.txt").write_text("".join(f"{e.name}: {e.summary} {e.paragraph}\n" for e in entries), "utf-8")
    counts = Counter(entry.file.partition("/")[0] for entry in entries)
    most = ", ".join(f"{package} {count:,}" for package, count in counts.most_common(10))
    console.print(f"{len(entries):,} pairs from {len(counts)} packages, the most from {most}: {sizes}", markup=False)


def read(folder: Path, path: Path) -> Iterator[Entry]:
    """The entries of a file's public classes and functions, in order."""
    for name, docstring in docstrings_of(folder, path):
        if texts := summary_and_paragraph(docstring):
            yield Entry(path.relative_to(folder).as_posix(), name, *texts)


def docstrings_of(folder: Path, path: Path) -> Iterator[tuple[str, str]]:
    """As `docstrings`, of a file; none of tests and of what is not Python 3."""
    file = path.relative_to(folder)
    if file.name.startswith("test_") or not {"test", "tests", "testing"}.isdisjoint(file.parts):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError, OSError):
        return
    module = [part for part in file.with_suffix("").parts if part[0] != "_"]
    yield from docstrings(tree, module)


def docstrings(node: ast.AST, name: list[str]) -> Iterator[tuple[str, str]]:
    """Names and docstrings of public classes and functions, also of those inside others."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            own = [*name, child.name]
            yield ".".join(own), ast.get_docstring(child) or ""
            yield from docstrings(child, own)


def summary_and_paragraph(docstring: str) -> tuple[str, str] | None:
    """The first paragraph and the next that is prose, if both are English and neither too short nor too long."""
    summary, *rest = (plain(block) for block in re.split(r"\n\s*\n", docstring))
    if not is_english(summary, least=4, most=30):
        return None
    for block in rest:
        if HEADING.match(block):
            return None
        if is_english(block, least=8, most=150):
            return summary, block
    return None


# Where a description ends in the styles of Google, NumPy, Sphinx and Epytext.
HEADING = re.compile(
    r"(args|arguments|attributes|examples?|inputs?|keyword arguments|notes?|outputs?|parameters|params|raises"
    r"|references|returns?|see also|usage|warnings?|warns|yields?)\s*(:|-{3}|={3})|[:@](arg|param|raise|return|type)",
    re.IGNORECASE,
)
# Doctests, directives, lists, tables, headings.
NO_PROSE = re.compile(r">>>|\.\. |[-*+|#=$<{\[(]|\d+[.)]")
ROLE = re.compile(r":[\w:+-]+:`[~!.]*([^`<]*?)\s*(<[^`]*>)?`")
COMMON = {"a", "an", "and", "are", "as", "be", "by", "for", "from", "if", "in", "is", "it", "of", "on", "or", "that"}
COMMON |= {"the", "this", "to", "when", "which", "with"}


def plain(block: str) -> str:
    """A paragraph as one line, without the marks of reStructuredText and Markdown."""
    return " ".join(re.sub(r"[`*]", "", ROLE.sub(r"\1", block)).split())


def is_english(text: str, *, least: int, most: int) -> bool:
    """Whether it is English prose of `least` to `most` words."""
    words = text.lower().split()
    letters = sum(char.isascii() and (char.isalpha() or char == " ") for char in text)
    return (
        least <= len(words) <= most
        and letters >= 0.85 * len(text)
        and len(COMMON.intersection(words)) >= least // 4
        and not NO_PROSE.match(text)
        and ">>>" not in text
    )


def unambiguous(entries: Iterable[Entry]) -> list[Entry]:
    """Each pair once, and only those whose two texts go with no other; case, digits and punctuation do not count.

    Nobody could say what a summary that heads several descriptions asks for. And as no text is left in two pairs, none
    can be in two parts of the corpus.
    """
    first: dict[tuple[str, str], Entry] = {}
    partners: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        one, other = (re.sub(r"[\W\d_]+", " ", text.lower()).strip() for text in (entry.summary, entry.paragraph))
        first.setdefault((one, other), entry)
        partners[one].add(other)
        partners[other].add(one)
    return [entry for (one, other), entry in first.items() if len(partners[one]) == len(partners[other]) == 1]


def part_of(file: str) -> str:
    """Of twenty files three are for the test and two for development; which, their names alone decide."""
    place = zlib.crc32(file.encode()) % 20
    return "test" if place < 3 else "development" if place < 5 else "train"


# ---- Training, and what it gave ----


def training_flags(to: Path, preset: str, steps: int, seed: int) -> list[str]:
    """The flags of `python -m simcse_tf.train`."""
    flags = f"sup-bert-base {RECIPE} --max-steps {steps} --eval-every {max(steps // 2, 1)} --seed {seed}".split()
    flags += ["--preset", preset, "--data", f"{to}/train.csv"]
    flags += ["--dev", f"{to}/development.csv"]
    flags += ["--output-dir", f"{to}/run", "--export-to", f"{to}/models/docs_search", "--no-report", "--resume"]
    console.print(f"python -m simcse_tf.train {shlex.join(flags)}", markup=False)
    return flags


def print_scores(to: Path, sts_dir: Path | None) -> None:
    """How the encoder did before training and after, on the test pairs and on general ones; writes the run's report."""
    report = to / "run" / "report.json"
    general = ["--tasks", "STSB-test", "--sts-dir", str(sts_dir)] if sts_dir else ["--tasks", "bundled"]
    if not report.is_file() or general[1] not in json.loads(report.read_text("utf-8"))["before"]["scores"]:
        console.print("scoring the encoder before and after training ...")
        evaluate.main([str(to / "run"), "--report", "--on", str(to / "test.csv"), *general])
    found = json.loads(report.read_text("utf-8"))
    before, after = (found[when]["on"]["test"]["figures"] | found[when]["scores"] for when in ("before", "after"))
    table = Table("x 100", "before", "after", title="Files that it was not trained on, and general pairs")
    for name in ("recall@1", "recall@10", "mrr@10", *(name for name in after if name in GENERAL)):
        table.add_row(GENERAL.get(name, name), f"{before[name]:.2f}", f"{after[name]:.2f}")
    console.print(table)
    console.print(f"more of it: {report.with_suffix('.html')}", markup=False)


# ---- Answers ----


def answer(to: Path, question: str | None, top_k: int) -> None:
    """Prints the nearest documents; makes the index first, if there is none."""
    model = simcse_tf.load(to / "models" / "docs_search")
    documents, index = to / "documents.txt", to / "index"
    if index.is_dir():
        model.load_index(index)
    else:
        with Progress(console=console) as bar, documents.open(encoding="utf-8") as lines:
            task = bar.add_task("indexing", total=sum(1 for _ in lines))
            model.build_index(documents, to=index, progress=lambda done: bar.update(task, completed=done))
    console.print(f"on a page: python -m simcse_tf.demo --models {to}/models (Search, {documents})", markup=False)
    for asked in [question] if question else questions():
        for document, cosine in model.search(asked, top_k=top_k, threshold=0.0):
            name, _, text = document.partition(": ")
            print(f"{cosine:.3f}  {name}\n       {textwrap.shorten(text, 160)}")


def questions() -> Iterator[str]:
    """What is typed, until an empty line or the end of the input."""
    with contextlib.suppress(EOFError):
        while asked := input("question: ").strip():
            yield asked


if __name__ == "__main__":
    cli.run(main)
