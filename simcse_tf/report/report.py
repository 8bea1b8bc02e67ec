"""What a training run changed, for people and for programs: `report.html` and the same numbers in `report.json`.

Needs nothing but the run directory and its development sets: the encoder that training began with is loaded again from
the run's configuration, the one that was kept from its checkpoint, and both are judged on the same sets. Needs the
extra `report`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf import runs
from simcse_tf.checks import require
from simcse_tf.config import LAST, TrainConfig
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.evaluation import bootstrap, sts, suite
from simcse_tf.evaluation.development import DevelopmentSet, Graded, Labelled, Triplets
from simcse_tf.evaluation.embedding import Encode, embed, unit, with_prompts
from simcse_tf.evaluation.motion import of_run
from simcse_tf.evaluation.retrieval import Retrieval
from simcse_tf.files import write_whole
from simcse_tf.formats import presets
from simcse_tf.report.conclusion import GENERAL, conclusion
from simcse_tf.training.plan import find_development_sets

# The set of rows that were held out and chose nothing.
TEST = "held-out-test"
# It stands beside the development set where a run is judged by that of STS-B's files.
_STS_TEST = "STSB-test"
_POINTS = 1_000  # of a curve; a long run's losses are averaged in groups
_EXAMPLES = 5  # of items that won most, and of those that lost most
_LONGEST = 300  # characters of an example's text
_CLOSE_PAIRS, _RANDOM_PAIRS, _FEWEST_PAIRS = 500, 20_000, 10


@dataclasses.dataclass(frozen=True, eq=False)
class _Judged:
    """A set, what both encoders answered, and its part in choosing the one that was kept."""

    set: DevelopmentSet
    role: str
    figures: tuple[dict[str, float], dict[str, float]]
    answers: tuple[np.ndarray, np.ndarray]


def write_report(
    run: Path,
    *,
    sts_dir: Path | None = None,
    transfer_dir: Path | None = None,
    tasks: Sequence[str] = (),
    tfds_dir: Path | None = None,
    on: Sequence[str] = (),
    columns: tuple[str, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, Path]:
    """Judges a run's first and best encoder and writes the report into the run directory.

    Args:
        run: A run directory with at least one evaluation.
        sts_dir: As `suite.load`; what it and the others name is judged beside the run's own development sets.
        transfer_dir: As `suite.load`.
        tasks: As `suite.load`.
        tfds_dir: As `suite.load`.
        on: As `suite.load`.
        columns: As `suite.load`.
        say: Called with lines of progress.

    Returns:
        `report.html` and `report.json`, both complete or untouched.

    Raises:
        UserError: The extra `report` is not installed; there is no run, or it has not been evaluated yet; the preset
            that it began with or a development set is no longer where it was; as `suite.load` and `suite.judge`.
    """
    check_installed()
    found = runs.read(run)
    steps = {"before": found.before["step"], "after": found.best["step"]}
    config = found.config
    origins = {"before": presets.locate(config.preset), "after": presets.locate(str(run))}
    given = suite.Suite(())
    if sts_dir or transfer_dir or tasks or on:
        given = suite.load(sts_dir, transfer_dir, tasks, tfds_dir=tfds_dir, on=on, columns=columns)
    known = {each.name for each in (*given.pairs, *given.on)}
    if TEST in known:
        raise UserError(f"`on`: a set is called '{TEST}', as the run's own held-out rows are. Rename its file.")
    own = [each for each in find_development_sets(config, runs.read_held_out(run)) if each.name not in known]
    if test := runs.read_held_out(run, runs.HELD_OUT_TEST):
        own.append(Retrieval.from_pairs(TEST, f"{config.data}, held out", test))
    if config.sts_dir and _STS_TEST not in known and sts.available(config.sts_dir, [_STS_TEST])[0]:
        own.append(Graded.of(sts.load(_STS_TEST, config.sts_dir)))
    chosen = dataclasses.replace(given, on=(*own, *given.on))
    sets = [*chosen.on, *(Graded.of(pairs) for pairs in chosen.pairs)]
    roles = _roles(found, sets)
    named = {each.name: each for each in sets}
    rests_on = _rests_on(roles, given)
    of_cosines = named[rests_on or found.development_sets[0].name]

    judged, cosines = {}, {}
    for when, origin in origins.items():
        say(f"{when}: the encoder of step {steps[when]}")
        encoder = _encoder(origin, config, when)
        judged[when] = suite.judge(encoder.encode, chosen, say=say)
        cosines[when] = _cosines(encoder.encode, of_cosines)
    both = (judged["before"], judged["after"])
    results = [
        _Judged(each, roles[each.name], _figures(both, each.name), _answers(both, each.name))
        for each in sorted(sets, key=lambda each: each.name != rests_on)
    ]
    numbers = _numbers(found, *both, results, rests_on)
    if cosines["before"] is not None:
        numbers["cosines"] = {"set": of_cosines.name, **_histograms(cosines)}

    from simcse_tf.report.page import page

    html, data = run / "report.html", run / "report.json"
    motion = of_run(run)
    if motion is not None:
        # Where each text was is in the page alone.
        numbers["watched"] = {name: getattr(motion, name) for name in ("steps", "together", "apart")}
    text = page(numbers, motion)
    write_whole(data, json.dumps(numbers, indent=1) + "\n")
    write_whole(html, text)
    return html, data


def check_installed() -> None:
    """Checks for what the report needs, without importing it.

    Raises:
        UserError: It is not installed; names the extra.
    """
    require("matplotlib", "report", "the report needs matplotlib")


def _encoder(origin: presets.Origin, config: TrainConfig, when: str) -> Any:
    from simcse_tf import quiet

    quiet.import_tensorflow()

    from simcse_tf.formats.encoders import load_encoder
    from simcse_tf.training.keep import starting_encoder

    return load_encoder(origin) if when == "after" else starting_encoder(origin, config)


def _roles(run: runs.Run, sets: Sequence[DevelopmentSet]) -> dict[str, str]:
    """What each set had to do with the choice: `selects`, `guards` (of the mix), or nothing (`tests`)."""
    judge, *others = (each.name for each in run.development_sets)
    chose = "tests" if run.config.select_by == LAST else "selects"
    guards = others if run.mixes and run.config.keep == "auto" else []
    return {each.name: chose if each.name == judge else "guards" if each.name in guards else "tests" for each in sets}


def _rests_on(roles: dict[str, str], given: suite.Suite) -> str | None:
    """The set on which the conclusion rests: of those that chose nothing the one that says most; None if there is none.

    The held-out rows come first, then what the report was asked for, then the other development sets. What a run gave
    that is selected by a domain, general pairs do not say.
    """
    on = [each.name for each in given.on]
    asked = (*on, _STS_TEST, *(pairs.name for pairs in given.pairs))
    tests = [name for name, role in roles.items() if role == "tests"]
    if any(name not in GENERAL for name, role in roles.items() if role == "selects"):
        general = {*GENERAL, *sts.TASKS} - set(on)
        tests = [name for name in tests if name not in general]
    return next((name for name in (TEST, *asked, *tests) if name in tests), None)


def _figures(judged: tuple[suite.Judgement, suite.Judgement], name: str) -> Any:
    own = [{each.name: figures for each, figures in judgement.on}.get(name) for judgement in judged]
    return tuple(figures or judgement.sts[name].all._asdict() for figures, judgement in zip(own, judged, strict=True))


def _answers(judged: tuple[suite.Judgement, suite.Judgement], name: str) -> Any:
    return tuple(
        judgement.answers[name] if name in judgement.answers else judgement.sts[name].cosines for judgement in judged
    )


def _numbers(
    run: runs.Run, before: suite.Judgement, after: suite.Judgement, results: list[_Judged], rests_on: str | None
) -> dict[str, Any]:
    changes = [_change(each) for each in results]
    judge = run.development_sets[0]
    kept = run.best.get("keep")
    return {
        "run": str(run.path),
        "conclusion": conclusion(
            changes, rests_on, unchanged=run.best["step"] == 0 or kept == 1, given_up=run.best["step"] > 0
        ),
        "made": _made(run),
        "config": json.loads(run.config.to_json()),
        "versions": {"training": run.versions, "report": suite.versions()},
        "steps": run.steps,
        "best_step": int(run.best["step"]),
        "keep": kept,
        "selected_by": {"name": judge.name, "figure": judge.headline, "label": judge.label},
        "changes": changes,
        "sizes": _sizes(run),
        "curves": {
            "loss": _thinned([(m["step"], m["loss"]) for m in run.metrics if "loss" in m]),
            "evaluations": run.evaluations,
            "mixes": run.mixes,
            "sets": [dataclasses.asdict(each) for each in run.development_sets],
        },
        "before": before.to_dict(),
        "after": after.to_dict(),
        "examples": [_examples(each) for each in results],
    }


def _change(judged: _Judged) -> dict[str, Any]:
    """The headline of a set before and after, and the interval of its change; of retrieval, how many first answers."""
    each = judged.set
    before, after = (figures[each.headline] for figures in judged.figures)
    interval = bootstrap.interval(each, *judged.answers)
    first = {}
    if isinstance(each, Retrieval):
        ranks = ([each.rank(i, answers) for i in range(len(answers))] for answers in judged.answers)
        first["first_right"] = [100 * of_each.count(1) / len(of_each) for of_each in ranks]
    return {
        "name": each.name,
        "kind": each.kind,
        "size": each.size,
        "source": each.source,
        "role": judged.role,
        "figure": each.headline,
        "label": each.labels[each.headline],
        "before": before,
        "after": after,
        "interval": None if interval is None else list(interval),
        **first,
    }


def _sizes(run: runs.Run) -> list[dict[str, Any]]:
    """The headline of each development set over the first numbers of every vector, where they were trained for that."""
    found = []
    for each in run.development_sets if run.sizes else ():
        name = f"{each.name}/{each.headline}"
        names = {"all": name} | {str(size): runs.figure_at(name, size) for size in run.sizes}
        lines = [[shown, run.before[name], run.best[name]] for shown, name in names.items()]
        found.append({"name": each.name, "label": each.label, "lines": lines})
    return found


def _made(run: runs.Run) -> dict[str, Any]:
    """When, how, on what and in which time the run was trained, as far as that is known."""
    if not run.commands:
        return {}
    # Each command counts its seconds from 0, and logs every step. Of what is done again the last time alone is there.
    seconds, last = 0.0, 0.0
    for elapsed in (line["elapsed_seconds"] for line in run.metrics if "elapsed_seconds" in line):
        seconds, last = seconds + (last if elapsed < last else 0.0), elapsed
    return {
        "date": run.commands[0]["date"],
        "command": run.commands[0]["command"],
        "commands": len(run.commands),
        "seconds": round(seconds + last, 1),
        **{what: list(dict.fromkeys(line[what] for line in run.commands)) for what in ("machine", "program")},
    }


def _thinned(curve: list[tuple[float, float]]) -> list[list[float]]:
    """`[step, value]` points; groups of neighbours are averaged when there are too many."""
    size = math.ceil(len(curve) / _POINTS)
    groups = [curve[i : i + size] for i in range(0, len(curve), max(size, 1))]
    return [[group[-1][0], float(np.mean([value for _, value in group]))] for group in groups]


def _examples(judged: _Judged) -> dict[str, Any]:
    """The items of a set whose answers became better and worse most."""
    gains = judged.set.gains(*judged.answers)
    order = np.argsort(-gains, kind="stable").tolist()
    return {
        "name": judged.set.name,
        "kind": judged.set.kind,
        "better": int(np.sum(gains > 0)),
        "worse": int(np.sum(gains < 0)),
        "items": len(gains),
        "won": [_example(judged, i) for i in order[:_EXAMPLES] if gains[i] > 0],
        "lost": [_example(judged, i) for i in order[: -_EXAMPLES - 1 : -1] if gains[i] < 0],
    }


def _example(judged: _Judged, i: int) -> dict[str, Any]:
    """An item for people: its texts, and what it got before and after."""
    each, (before, after) = judged.set, judged.answers
    if isinstance(each, Retrieval):
        query, document = each.close_pairs()[i]
        firsts = (answers[i][0] for answers in (before, after))
        first_before, first_after = (_short(each.documents[first]) if first >= 0 else None for first in firsts)
        return {
            "query": _short(query),
            "document": _short(document),
            "rank_before": each.rank(i, before),
            "rank_after": each.rank(i, after),
            "first_before": first_before,
            "first_after": first_after,
        }
    cosines = {"before": np.round(before[i], 3).tolist(), "after": np.round(after[i], 3).tolist()}
    if isinstance(each, Triplets):
        texts = {"anchor": each.anchors[i], "positive": each.positives[i], "negative": each.negatives[i]}
        return {name: _short(text) for name, text in texts.items()} | cosines
    if isinstance(each, Labelled):
        return {"a": _short(each.a[i]), "b": _short(each.b[i]), "label": int(each.same[i])} | cosines
    assert isinstance(each, Graded)
    pairs = each.pairs
    return {"a": _short(pairs.a[i]), "b": _short(pairs.b[i]), "grade": float(pairs.gold[i])} | cosines


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _cosines(encode: Encode, each: DevelopmentSet) -> tuple[np.ndarray, np.ndarray] | None:
    """Cosines of a set's pairs that should be close, and of random pairs of their texts; None if there are too few."""
    pairs = each.close_pairs()
    rng = np.random.default_rng(0)
    pairs = [pairs[i] for i in np.sort(rng.permutation(len(pairs))[:_CLOSE_PAIRS])]
    if len(pairs) < _FEWEST_PAIRS:
        return None
    left, right = (list(side) for side in zip(*pairs, strict=True))
    sides: tuple[PromptName | None, ...] = ("query", "passage") if isinstance(each, Retrieval) else (None, None)
    ask = with_prompts(encode)
    a, b = (
        unit(embed(lambda asked, side=side: ask(asked, side), texts, each.name), texts, each.name)
        for side, texts in zip(sides, (left, right), strict=True)
    )
    i, j = rng.integers(0, len(pairs), (2, _RANDOM_PAIRS))
    # Numbers of the distinct texts: an array of texts is as wide as the longest of them.
    numbers = {text: number for number, text in enumerate(dict.fromkeys(right))}
    texts = np.array([numbers[text] for text in right])
    other = texts[i] != texts[j]
    if not other.any():
        return None
    return np.sum(a * b, axis=1), np.sum(a[i[other]] * b[j[other]], axis=1)


def _histograms(cosines: dict[str, Any]) -> dict[str, Any]:
    """Of both encoders, over the same bins; and how many close pairs are closer than nearly all random ones."""
    everything = np.concatenate([values for both in cosines.values() for values in both])
    edges = np.linspace(everything.min(), everything.max(), 31)
    found: dict[str, Any] = {"bin_edges": np.round(edges, 4).tolist()}
    for when, (close, random) in cosines.items():
        found[when] = {
            "close": np.histogram(close, edges)[0].tolist(),
            "random": np.histogram(random, edges)[0].tolist(),
            "close_mean": float(close.mean()),
            "random_mean": float(random.mean()),
            "told_apart": float(np.mean(close > np.percentile(random, 99))),
        }
    return found
