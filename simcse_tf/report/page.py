"""`report.html`: one file that opens without a network, on a phone too, in light and dark."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from simcse_tf.config import TrainConfig
from simcse_tf.evaluation.development import digits
from simcse_tf.report import figures

_CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f7f9; --ink: #1d2430; --soft: #5b6675; --grid: #d5dae1;
  --before: #c2591a; --after: #1f6fd6; --third: #6b7280; --better: #157f3d; --worse: #c0281c;
  --cluster0: #1f6fd6; --cluster1: #c2591a; --cluster2: #157f3d; --cluster3: #b3267e; --cluster4: #7a5af0;
  --cluster5: #0c8599; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b2129; --ink: #e6e9ee; --soft: #9aa5b4;
  --grid: #343d49; --before: #f0935a; --after: #6cb0ff; --third: #9aa5b4; --better: #5fd38a; --worse: #ff7b72;
  --cluster0: #6cb0ff; --cluster1: #f0935a; --cluster2: #5fd38a; --cluster3: #f27cc0; --cluster4: #b09bff;
  --cluster5: #4fd1e5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
p.note, figcaption, td small { color: var(--soft); font-size: .875rem; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .6rem; margin: 1rem 0; }
.tile, figure { background: var(--card); border-radius: .6rem; margin: 0; padding: .75rem; }
.tile span { color: var(--soft); display: block; font-size: .8rem; }
.tile b { font-size: clamp(1rem, 4.2vw, 1.3rem); font-variant-numeric: tabular-nums; }
figure { --paper: var(--card); }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .925rem; width: 100%; }
th, td { border-bottom: 1px solid var(--grid); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
td.n, th.n { font-variant-numeric: tabular-nums; text-align: right; white-space: nowrap; }
td.code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85rem; overflow-wrap: anywhere; }
td.code:first-child { white-space: nowrap; }
.better { color: var(--better); } .worse { color: var(--worse); }
.before { color: var(--before); } .after { color: var(--after); }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; }
"""


def page(numbers: dict[str, Any]) -> str:
    """The report as HTML.

    Args:
        numbers: What `simcse_tf.report.report` found, as in `report.json`.
    """
    name = escape(Path(numbers["run"]).name)
    sections = [_summary(numbers), _scores(numbers), _curves(numbers)]
    if "pictures_of" in numbers:
        sections += [_similarity(numbers), _space(numbers), _map(numbers["map"])]
    sections.append(_settings(numbers))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: what training changed</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _summary(numbers: dict[str, Any]) -> str:
    config, judge = numbers["config"], numbers["selected_by"]
    tiles = [(f"{judge['label']}, {judge['name']}", judge["before"], judge["after"], 2)]
    if "pictures_of" in numbers:
        start, end, random = numbers["before"]["geometry"], numbers["after"]["geometry"], numbers["random_pairs"]
        tiles += [(key, start[key], end[key], 3) for key in ("alignment", "uniformity")]
        tiles += [("mean cosine of random pairs", random["before"]["mean"], random["after"]["mean"], 3)]
    shown = "".join(
        f"<div class='tile'><span>{escape(label)}</span><b>{_number(a, digits)} → {_number(b, digits)}</b></div>"
        for label, a, b, digits in tiles
    )
    kept = (
        f"The encoder of step {numbers['best_step']} was kept: it scored best on the development set "
        f"<b>{escape(judge['name'])}</b> ({escape(judge['label'])})."
    )
    if numbers["best_step"] == 0:
        kept = (
            "No step improved on the encoder that training began with: that one was kept, so that before and after "
            "are the same."
        )
    return (
        f"<h1>{escape(Path(numbers['run']).name)}: what training changed</h1>"
        f"<p><b class='before'>Before</b> is <b>{escape(config['preset'])}</b> as training found it, pooled with "
        f"{escape(config['pooling'])}. <b class='after'>After</b> is what {numbers['steps']} steps of "
        f"{config['batch_size']} on <b>{escape(str(config['data']))}</b> made of it. {kept}</p>"
        f"<div class='tiles'>{shown}</div>"
    )


def _scores(numbers: dict[str, Any]) -> str:
    start, end = numbers["before"], numbers["after"]
    rows = []
    for task, a in start["scores"].items():
        rows.append(_change(task, f"{start['details'][task]['pairs']:,} pairs", a, end["scores"][task]))
    if start["average"] is not None:
        rows.append(_change("Average", "the paper's 7 tasks", start["average"], end["average"]))
    for name, a in start["on"].items():
        for figure, value in a["figures"].items():
            # Of a threshold neither more nor less is better.
            if figure != "threshold":
                label, after = a["labels"][figure], end["on"][name]["figures"][figure]
                higher = "lower is better" not in label
                rows.append(_change(name, label, value, after, digits=digits(label), higher_is_better=higher))
    for task, a in start["transfer"].items():
        rows.append(_change(task, "transfer, accuracy", a["accuracy"], end["transfer"][task]["accuracy"]))
    for key in ("alignment", "uniformity") if start["geometry"] else ():
        a, b = start["geometry"][key], end["geometry"][key]
        rows.append(_change(key, "lower is better", a, b, digits=4, higher_is_better=False))
    missing = ""
    if start["missing"]:
        missing = _note(f"Not there, so not scored: {escape(', '.join(start['missing']))}.")
    return (
        "<h2>Scores</h2>"
        + _note(
            "STS: Spearman x 100 of cosine similarity against human grades, all subsets of a task together, no "
            "regressor. A difference of a point between two runs means little without several seeds."
        )
        + _table("".join(rows), "Task", ">before", ">after", ">change")
        + missing
    )


def _change(label: str, about: str, a: float, b: float, *, digits: int = 2, higher_is_better: bool = True) -> str:
    # The change of what is shown, so that the row adds up.
    change = round(b, digits) - round(a, digits)
    kind = "" if change == 0 else "better" if (change > 0) == higher_is_better else "worse"
    sign = "+" if change > 0 else ""
    return (
        f"<tr><td>{escape(label)} <small>{escape(about)}</small></td>"
        f"<td class='n'>{_number(a, digits)}</td><td class='n'>{_number(b, digits)}</td>"
        f"<td class='n {kind}'>{sign}{_number(change, digits)}</td></tr>"
    )


def _curves(numbers: dict[str, Any]) -> str:
    curves, judge = numbers["curves"], numbers["selected_by"]
    panels = [figures.development(curves["evaluations"], numbers["best_step"], judge["name"], judge["label"])]
    if curves["loss"]:
        steps, losses = zip(*curves["loss"], strict=True)
        panels.insert(0, figures.loss(steps, losses))
    return "<h2>Training</h2>" + _panels(*panels)


def _similarity(numbers: dict[str, Any]) -> str:
    found, about = numbers["similarities"], numbers["pictures_of"]
    low = min(0.0, *found["before"], *found["after"]) - 0.03
    return (
        "<h2>Similarity against grade</h2>"
        + _note(
            f"Each dot is one of the {about['pairs']:,} pairs of {escape(about['name'])}. A good encoder's dots rise "
            "from left to right; Spearman says how well they do."
        )
        + _panels(*(figures.similarity(found["gold"], found[when], when, low) for when in ("before", "after")))
    )


def _space(numbers: dict[str, Any]) -> str:
    random = numbers["random_pairs"]
    spread = {when: f"{_number(random[when]['mean'], 3)} ± {random[when]['std']:.3f}" for when in ("before", "after")}
    path = [(e["step"], e["uniformity"], e["alignment"]) for e in numbers["curves"]["evaluations"] if "alignment" in e]
    measured = [numbers[when]["geometry"] for when in ("before", "after")]
    ends = [(geometry["uniformity"], geometry["alignment"]) for geometry in measured]
    return (
        "<h2>The space</h2>"
        + _note(
            "Contrastive training spreads unrelated sentences (uniformity falls, random pairs move towards 0) and "
            "should keep sentences of the same meaning close (alignment stays low). Numbers in the right "
            f"picture are steps. Random pairs: {spread['before']} before, {spread['after']} after."
        )
        + _panels(
            figures.random_pairs(random["bin_edges"], random["before"]["counts"], random["after"]["counts"]),
            figures.plane(path, *ends),
        )
    )


def _map(found: dict[str, Any]) -> str:
    points = {when: np.array(found[when]["points"]) for when in ("before", "after")}
    everything = np.concatenate(list(points.values()))
    limits = np.stack([everything.min(axis=0), everything.max(axis=0)]) * 1.05
    cluster = np.array(found["cluster"]) - 1
    rows = "".join(
        f"<tr><td class='n' style='color: var(--cluster{c['cluster'] - 1})'><b>{c['cluster']}</b></td>"
        f"<td class='n'>{c['size']}</td><td>{escape(' · '.join(c['nearest_to_its_centre']))}</td></tr>"
        for c in found["clusters"]
    )
    cosines = "; ".join(
        f"{when} {_number(found[when]['cosine_inside_clusters'], 3)} inside a cluster, "
        f"{_number(found[when]['cosine_between_clusters'], 3)} between clusters"
        for when in ("before", "after")
    )
    variance = " and ".join(f"{100 * found[when]['variance_shown']:.0f}% {when}" for when in ("before", "after"))
    return (
        "<h2>Clusters</h2>"
        + _note(
            f"{len(found['shown'])} of {found['sentences']:,} sentences of the development set, on the two principal "
            "components of both spaces together: the same directions and the same scale left and right. The clusters "
            "were found by k-means in the space before training, and keep their colour and number. "
            f"Mean cosine: {cosines}. Two dimensions show only part of the variance ({variance})."
        )
        + _panels(*(figures.clusters(x, cluster, when, limits) for when, x in points.items()))
        + _details("What is in the clusters", _table(rows, ">no.", ">size", "nearest to its centre"))
    )


def _settings(numbers: dict[str, Any]) -> str:
    defaults = json.loads(TrainConfig().to_json())
    settings = ""
    for key, value in numbers["config"].items():
        text = escape(" ".join(map(str, value)) if isinstance(value, list) else str(value))
        shown = text if value == defaults.get(key) else f"<b>{text}</b>"
        settings += f"<tr><td class='code'>{escape(key)}</td><td class='code'>{shown}</td></tr>"
    training, now = numbers["versions"]["training"], numbers["versions"]["report"]
    versions = "".join(
        f"<tr><td>{name}</td><td class='n'>{escape(training.get(name, '-'))}</td><td class='n'>{version}</td></tr>"
        for name, version in now.items()
    )
    return (
        "<h2>Configuration and versions</h2>"
        + _note("Bold: what differs from the program's defaults.")
        + _details("Configuration", _table(settings))
        + _details("Versions", _table(versions, "package", ">training", ">this report"))
    )


def _panels(*svgs: str) -> str:
    return "<div class='panels'>" + "".join(f"<figure>{svg}</figure>" for svg in svgs) + "</div>"


def _note(text: str) -> str:
    return f"<p class='note'>{text}</p>"


def _details(summary: str, content: str) -> str:
    return f"<details open><summary>{summary}</summary>{content}</details>"


def _table(rows: str, *header: str) -> str:
    """Rows under a header; a name that begins with > stands on the right, over numbers."""
    cells = "".join(f"<th{' class=n' * (name[0] == '>')}>{name.removeprefix('>')}</th>" for name in header)
    return f"<div class='scroll'><table>{f'<tr>{cells}</tr>' * bool(header)}{rows}</table></div>"


def _number(value: float | None, digits: int) -> str:
    # A real minus sign, as wide as the digits.
    return "&ndash;" if value is None else f"{value:.{digits}f}".replace("-", "&minus;")
