"""`report.html`: one file that opens without a network, on a phone too, in light and dark."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any

from simcse_tf.config import TrainConfig
from simcse_tf.evaluation.development import digits
from simcse_tf.evaluation.motion import SCRIPT, STYLE, Motion, picture
from simcse_tf.report import figures
from simcse_tf.report.conclusion import signed, verdict

_CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f7f9; --ink: #1d2430; --soft: #5b6675; --grid: #d5dae1;
  --before: #c2591a; --after: #1f6fd6; --third: #6b7280; --better: #157f3d; --worse: #c0281c; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --card: #1b2129; --ink: #e6e9ee; --soft: #9aa5b4;
  --grid: #343d49; --before: #f0935a; --after: #6cb0ff; --third: #9aa5b4; --better: #5fd38a; --worse: #ff7b72; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .25rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
h3 { font-size: 1rem; margin: .75rem 0 .25rem; }
p.note, td small, th small { color: var(--soft); font-size: .875rem; }
td.n small, th small { font-weight: normal; white-space: normal; }
.code { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: .85rem; overflow-wrap: anywhere; }
ol { margin: 0; padding-left: 1.4rem; } li p { margin: 0 0 .5rem; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1rem; }
figure { background: var(--card); border-radius: .6rem; margin: 0; padding: .75rem; }
.conclusion { background: var(--card); border-left: .35rem solid var(--third); border-radius: .4rem; margin: 1rem 0;
  padding: .75rem 1rem; }
.conclusion p { margin: 0; max-width: none; } .conclusion p:first-child { font-size: 1.1rem; margin-bottom: .4rem; }
.conclusion.better { border-color: var(--better); } .conclusion.worse { border-color: var(--worse); }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.scroll { overflow-x: auto; } .scroll + .panels { margin-top: 1rem; }
table { border-collapse: collapse; font-size: .925rem; width: 100%; }
th, td { border-bottom: 1px solid var(--grid); padding: .3rem .6rem .3rem 0; text-align: left; vertical-align: top; }
td.n, th.n { font-variant-numeric: tabular-nums; text-align: right; } td.n { white-space: nowrap; }
td.code:first-child { white-space: nowrap; }
td.better { color: var(--better); } td.worse { color: var(--worse); }
.before { color: var(--before); } .after { color: var(--after); }
summary { cursor: pointer; font-weight: 600; margin: .5rem 0; }
"""


def page(numbers: dict[str, Any], motion: Motion | None = None) -> str:
    """The report as HTML.

    Args:
        numbers: What `simcse_tf.report.report` found, as in `report.json`.
        motion: The texts that the run watched, if it watched any.
    """
    name = escape(Path(numbers["run"]).name)
    style = _CSS + (STYLE.read_text("utf-8") if motion else "")
    sections = [
        _conclusion(numbers),
        _changes(numbers),
        _curves(numbers),
        _mixes(numbers),
        _sizes(numbers),
        _examples(numbers),
        _space(numbers),
        _watched(motion, numbers),
        _figures(numbers),
        _settings(numbers),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name}: what training changed</title>\n<style>{style}</style>\n</head>\n<body>\n"
        + "\n".join(section for section in sections if section)
        + "\n</body>\n</html>\n"
    )


def _conclusion(numbers: dict[str, Any]) -> str:
    config, found = numbers["config"], numbers["conclusion"]
    trained = f"on <b>{escape(str(config['data']))}</b> with {config['batch_size']} rows a step"
    mixed = f", mixed with {numbers['keep']:g} of the starting weights" if numbers["keep"] else ""
    after = f"is the encoder after step {numbers['best_step']} of {numbers['steps']}, trained {trained}{mixed}"
    if found["verdict"] == "unchanged":
        after = f"{numbers['steps']} steps {trained}, it is still that"
    return (
        f"<h1>{escape(Path(numbers['run']).name)}: what training changed</h1>"
        f"<div class='conclusion {found['verdict']}'><p><b>{escape(found['title'])}</b> {escape(found['text'])}</p>"
        f"{''.join(_note(escape(note)) for note in found['notes'])}</div>"
        f"<p><b class='before'>Before</b> is <b>{escape(config['preset'])}</b> as training found it, pooled with "
        f"{escape(config['pooling'])}. <b class='after'>After</b> {after}.</p>{_made(numbers['made'])}"
    )


def _made(made: dict[str, Any]) -> str:
    if not made:
        return ""
    date = made["date"].replace("T", " ")[:16]
    several = f", by {made['commands']} commands" if made["commands"] > 1 else ""
    took = f"{_duration(made['seconds'])}, evaluations included{several}"
    where = escape("; ".join(made["machine"]))
    command = f"<p class='code'>{escape(made['command'])}</p>" if made["command"] else ""
    return _note(f"Trained {date} in {took}, on {where}. {escape('; '.join(made['program']))}.") + command


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _changes(numbers: dict[str, Any]) -> str:
    roles = {
        "selects": "chose the step, hence optimistic",
        "guards": "had a say in the choice of the mix",
        "tests": "chose nothing",
    }
    rows = ""
    for each in numbers["changes"]:
        label = each["label"]
        kind = verdict(each).replace("noise", "")
        ends = "too few items" if each["interval"] is None else _interval(each["interval"], digits(label))
        about = f"{label}; {each['size']}; {roles[each['role']]}"
        rows += _row(each["name"], about, each["before"], each["after"], digits(label), kind=kind, below=ends)
    return (
        "<h2>Before and after</h2>"
        + _note(
            "In small print below a change: its 95 % interval, a paired bootstrap over pairs or queries. Where 0 lies "
            "in it, other texts of the same kind could show the opposite. Another seed of training is not in it: that "
            "moves figures by up to a point."
        )
        + _table(rows, "Set", ">before", ">after", ">change")
        + _panels(figures.changes(numbers["changes"]))
    )


def _interval(ends: list[float], shown: int) -> str:
    return " to ".join(signed(end, shown) for end in ends)


def _row(name: str, about: str, a: float, b: float, shown: int, *, kind: str = "", below: str = "") -> str:
    # The change of what is shown, so that the row adds up.
    change = round(b, shown) - round(a, shown)
    small = f"<br><small>{below}</small>" if below else ""
    return (
        f"<tr><td>{escape(name)} <small>{escape(about)}</small></td>"
        f"<td class='n'>{_number(a, shown)}</td><td class='n'>{_number(b, shown)}</td>"
        f"<td class='n {kind}'>{signed(change, shown)}{small}</td></tr>"
    )


def _curves(numbers: dict[str, Any]) -> str:
    curves, sets = numbers["curves"], numbers["curves"]["sets"]
    evaluations, best = curves["evaluations"], numbers["best_step"]
    chosen = next((line for line in curves["mixes"] if line["chosen"] and line["keep"] > 0), None)
    panels = []
    for i, each in enumerate(sets):
        name, key = each["name"], _key(each, first=i == 0)
        lines = {"as exported": _points(evaluations, "step", key)}
        if i == 0:
            # One of the two others is what is exported.
            for other in ("with_head", "without_head"):
                line = _points(evaluations, "step", f"dev_{other}")
                if line and line != lines["as exported"]:
                    lines[other.replace("_", " ")] = line
        if lines["as exported"]:
            kept = chosen[key] if chosen else None
            panels.append(figures.over_steps(name, each["labels"][each["headline"]], lines, best, kept))
    if len(sets) > 1 and len(evaluations) > 1:
        keys = (_key(sets[1], first=False), _key(sets[0], first=True))
        names = tuple(f"{each['name']}, {each['labels'][each['headline']]}" for each in (sets[1], sets[0]))
        path, mixed = (
            [(line[at], *(line[key] for key in keys)) for line in lines if all(key in line for key in keys)]
            for at, lines in (("step", evaluations), ("keep", curves["mixes"]))
        )
        if path:
            panels.append(figures.trade(names, path, mixed))
    if curves["loss"]:
        panels.append(figures.loss(*zip(*curves["loss"], strict=True)))
    return "<h2>Over the steps</h2>" + _panels(*panels)


def _key(each: dict[str, Any], *, first: bool) -> str:
    # Version 0.1.0 logged the figure that selects as `dev` alone.
    return "dev" if first else f"{each['name']}/{each['headline']}"


def _points(lines: list[dict[str, Any]], x: str, y: str) -> list[tuple[float, float]]:
    return [(line[x], line[y]) for line in lines if y in line]


def _mixes(numbers: dict[str, Any]) -> str:
    lines, sets = numbers["curves"]["mixes"], numbers["curves"]["sets"]
    if not lines:
        return ""
    of_sets = {each["name"]: _points(lines, "keep", _key(each, first=i == 0)) for i, each in enumerate(sets)}
    rows = ""
    for i, line in enumerate(lines):
        cells = "".join(f"<td class='n'>{_number(values[i][1], 2)}</td>" for values in of_sets.values())
        share = f"<b>{line['keep']:g}, chosen</b>" if line["chosen"] else f"{line['keep']:g}"
        rows += f"<tr><td>{share}</td>{cells}</tr>"
    heads = [f">{escape(each['name'])} <small>{escape(each['labels'][each['headline']])}</small>" for each in sets]
    return (
        "<h2>Mixes with the starting weights</h2>"
        + _note(
            f"The weights of step {numbers['best_step']}, mixed with a share of those that training began with: 0 is "
            "what was trained, 1 the start."
        )
        + _table(rows, "share kept", *heads)
        + _panels(figures.mixes(of_sets, next(line["keep"] for line in lines if line["chosen"])))
    )


def _sizes(numbers: dict[str, Any]) -> str:
    if not numbers["sizes"]:
        return ""
    rows = "".join(
        _row(f"{size} dimensions", f"{each['name']}, {each['label']}", before, after, digits(each["label"]))
        for each in numbers["sizes"]
        for size, before, after in each["lines"]
    )
    return (
        "<h2>Fewer dimensions</h2>"
        + _note("The first numbers of every vector alone, for which this encoder was trained too (Matryoshka).")
        + _table(rows, "Size", ">before", ">after", ">change")
    )


def _examples(numbers: dict[str, Any]) -> str:
    named = {each["name"]: each for each in numbers["examples"] if each["won"] or each["lost"]}
    first = numbers["conclusion"]["rests_on"] or numbers["selected_by"]["name"]
    parts = []
    for name in sorted(named, key=lambda name: name != first):
        each = named[name]
        show = {"retrieval": _query, "triplets": _triplet}.get(each["kind"], _pair)
        lists = "".join(
            f"<h3>{title}</h3><ol>{''.join(f'<li>{show(item)}</li>' for item in each[which])}</ol>"
            for which, title in (("won", "Won most"), ("lost", "Lost most"))
            if each[which]
        )
        summary = (
            f"{escape(name)}: {each['better']:,} of {each['items']:,} better, {each['worse']:,} worse, the rest equal"
        )
        parts.append(_details(summary, lists, is_open=name == first))
    return "<h2>Won and lost most</h2>" + "".join(parts) if parts else ""


def _query(item: dict[str, Any]) -> str:
    ranks = [item[f"rank_{when}"] or "beyond 10" for when in ("before", "after")]
    text = (
        f"<p><b>{escape(item['query'])}</b><br>Its document: {escape(item['document'])}<br>"
        f"Rank <b class='before'>{ranks[0]}</b> → <b class='after'>{ranks[1]}</b></p>"
    )
    for when in ("before", "after"):
        if item[f"first_{when}"] is not None and item[f"rank_{when}"] != 1:
            text += f"<p class='note'>First {when}: {escape(item[f'first_{when}'])}</p>"
    return text


def _pair(item: dict[str, Any]) -> str:
    what = f"grade {item['grade']:g}" if "grade" in item else f"label {item['label']}"
    return f"<p>{escape(item['a'])}<br>{escape(item['b'])}<br>{what}; cosine {_before_after(item)}</p>"


def _triplet(item: dict[str, Any]) -> str:
    (positive, negative) = ({when: item[when][i] for when in ("before", "after")} for i in (0, 1))
    return (
        f"<p><b>{escape(item['anchor'])}</b><br>positive, cosine {_before_after(positive)}: "
        f"{escape(item['positive'])}<br>negative, cosine {_before_after(negative)}: {escape(item['negative'])}</p>"
    )


def _before_after(item: dict[str, Any]) -> str:
    before, after = (f"<b class='{when}'>{_number(item[when], 3)}</b>" for when in ("before", "after"))
    return f"{before} → {after}"


def _space(numbers: dict[str, Any]) -> str:
    panels, notes = [], []
    if "cosines" in numbers:
        found = numbers["cosines"]
        before, after = (f"<b>{100 * found[when]['told_apart']:.0f} %</b>" for when in ("before", "after"))
        notes.append(
            f"Pairs of {escape(found['set'])} that belong together should be closer than random pairs of its texts. "
            f"Before training {before} of them were closer than 99 % of the random ones; after it {after} are."
        )
        edges = found["bin_edges"]
        panels += [
            figures.cosines(edges, found[when]["close"], found[when]["random"], when) for when in ("before", "after")
        ]
    measured = {name: each["figures"] for name, each in numbers["before"]["on"].items()}
    name = next((name for name, found in measured.items() if "alignment" in found), None)
    if name is not None:
        keys = ("uniformity", "alignment")
        path = [
            (line["step"], *(line[f"{name}/{key}"] for key in keys))
            for line in numbers["curves"]["evaluations"]
            if f"{name}/alignment" in line
        ]
        before, after = (
            tuple(numbers[when]["on"][name]["figures"][key] for key in keys) for when in ("before", "after")
        )
        notes.append(
            f"Training spreads unrelated texts (uniformity falls) and should keep texts of the same meaning close "
            f"(alignment stays low): on {escape(name)}, with steps as small numbers."
        )
        panels.append(figures.plane(path, before, after))
    return "<h2>The space</h2>" + "".join(map(_note, notes)) + _panels(*panels) if panels else ""


def _watched(motion: Motion | None, numbers: dict[str, Any]) -> str:
    if motion is None:
        return ""
    what = "the dots of texts that belong together are joined" if motion.rows else "a line leads to where a text was"
    return (
        "<h2>What the encoder learned to see</h2>"
        + _note(
            f"{len(motion.texts):,} texts where the encoder saw them, evaluation by evaluation: {what}. One projection "
            f"for all steps, onto the plane in which those of the first and the last differ most. The best step is "
            f"{numbers['best_step']}."
        )
        + picture(motion)
        + f"<script>{SCRIPT.read_text('utf-8')}\nsimcseMotion(document.querySelector('.motion'));</script>"
    )


def _figures(numbers: dict[str, Any]) -> str:
    """All figures, for those who want more than the headlines."""
    start, end = numbers["before"], numbers["after"]
    rows = []
    for name, a in start["on"].items():
        for figure, value in a["figures"].items():
            # Of a threshold neither more nor less is better.
            if figure != "threshold":
                label, after = a["labels"][figure], end["on"][name]["figures"][figure]
                rows.append(_row(name, label, value, after, digits(label)))
    for task, a in start["scores"].items():
        about = f"Spearman x 100, {start['details'][task]['pairs']:,} pairs"
        rows.append(_row(task, about, a, end["scores"][task], 2))
    if start["average"] is not None:
        rows.append(_row("Average", "the paper's 7 tasks", start["average"], end["average"], 2))
    for task, a in start["transfer"].items():
        rows.append(_row(task, "transfer, accuracy", a["accuracy"], end["transfer"][task]["accuracy"], 2))
    for key in ("alignment", "uniformity") if start["geometry"] else ():
        about = f"{start['geometry']['task']}, lower is better"
        rows.append(_row(key, about, start["geometry"][key], end["geometry"][key], 4))
    missing = ""
    if start["missing"]:
        missing = _note(f"Not there, so not scored: {escape(', '.join(start['missing']))}.")
    return (
        "<h2>Details</h2>"
        + _details("All figures", _table("".join(rows), "Set", ">before", ">after", ">change"))
        + missing
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
    return _details(
        "Configuration", _note("Bold: what differs from the program's defaults.") + _table(settings)
    ) + _details("Versions", _table(versions, "package", ">training", ">this report"))


def _panels(*svgs: str) -> str:
    return "<div class='panels'>" + "".join(f"<figure>{svg}</figure>" for svg in svgs) + "</div>"


def _note(text: str) -> str:
    return f"<p class='note'>{text}</p>"


def _details(summary: str, content: str, *, is_open: bool = False) -> str:
    return f"<details{' open' * is_open}><summary>{summary}</summary>{content}</details>"


def _table(rows: str, *header: str) -> str:
    """Rows under a header; a name that begins with > stands on the right, over numbers."""
    cells = "".join(f"<th{' class=n' * (name[0] == '>')}>{name.removeprefix('>')}</th>" for name in header)
    return f"<div class='scroll'><table>{f'<tr>{cells}</tr>' * bool(header)}{rows}</table></div>"


def _number(value: float | None, digits: int) -> str:
    # A real minus sign, as wide as the digits.
    return "&ndash;" if value is None else f"{value:.{digits}f}".replace("-", "&minus;")
