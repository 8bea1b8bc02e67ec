"""Learn: train an encoder on sentences of one's own, and watch where it sees them, step by step."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from simcse_tf import runs
from simcse_tf.data.columns import choose
from simcse_tf.data.sources import FORMATS
from simcse_tf.demo import material, pictures, progress, text
from simcse_tf.demo.jobs import MAX_BATCH, MAX_STEPS, MINUTES, Job, Jobs, Settings, State
from simcse_tf.demo.models import Registry
from simcse_tf.demo.page import Page, page_errors
from simcse_tf.errors import UserError
from simcse_tf.evaluation import motion

OFF = (
    "This page can be reached from other machines, and a training takes this one's processor for minutes: nobody can "
    "start one here. Start the page with `--allow-training` to allow it to everybody who can open it."
)
_SOURCES = [
    ("typed or pasted", "typed"),
    ("a file", "file"),
    ("bundled sentences", "bundled"),
    ("bundled triplets", "bundled:triplets"),
]
_TEMPERATURES = [("default: 0.05, sentences 0.3", 0.0), *((f"{t:g}", t) for t in (0.02, 0.05, 0.1, 0.2, 0.3))]
_RATES = [(f"{rate:g}", rate) for rate in (1e-5, 2e-5, 3e-5, 5e-5, 1e-4)]
_BATCHES = [4, 8, 16, 32, MAX_BATCH]
# Seconds between looks at a training.
_LOOK_EVERY = 1
# What moves as soon as there is a picture.
_MOVES = """
let state = null;
const begin = () => {
  const root = element.querySelector(".motion");
  state = root ? simcseMotion(root, state) : null;
};
watch("value", begin);
begin();
"""


# What stands there until then.
_WAITING = (
    '<p class="legend">Here your texts will move, some 20 seconds after Start: a dot for each, a line between those '
    "that belong together, and the curve of what the encoder scores.</p>"
)


class Seen(NamedTuple):
    """What a visitor has on the screen: the names of all trainings, and of one its evaluations and whether it ended."""

    names: tuple[str, ...] = ()
    name: str = ""
    steps: tuple[int, ...] = ()
    ended: bool = False


def read(source: str, typed: str, file: str | None, columns: list[str] | None) -> material.Material:
    """The rows that a visitor gives.

    Raises:
        UserError: There are none, or they cannot be used.
    """
    if source == "typed":
        return material.typed(typed)
    if source == "file":
        if not file:
            raise UserError("No file yet. Upload one first.")
        return material.uploaded(file, columns or ())
    if source not in dict(_SOURCES).values():
        raise UserError(f"'{str(source)[:60]}': expected one of {', '.join(dict(_SOURCES).values())}.")
    return material.bundled(source)


def status(jobs: Jobs, job: Job, state: State, key: str | None) -> str:
    """How a training stands, for people.

    Args:
        jobs: All of them.
        job: The training.
        state: Its state.
        key: The exported model's name on the page, if there is one.
    """
    about = job.about
    heading = (
        f"<p><b>{text.escape(job.name)}</b>: {about['rows']:,} {about['kind']}, beginning with "
        f"{text.escape(about['base'])}.</p>"
    )
    if state.what == "waiting":
        return f"{heading}<p>Waits for its turn: place {jobs.place(job)} in the queue.</p>"
    found = progress.of_job(job)
    parts = [heading, _bar(found), _said(state, found)]
    if state.what == "failed":
        parts.append(f'<p class="wrong">{text.escape(state.message)}</p>')
    elif state.ended:
        parts.append(_kept(state, found, key))
    curves = ""
    if found.scores:
        curves += pictures.curve(found.judge, found.scores, found.total, best=found.best_step)
    if found.losses:
        curves += pictures.curve("loss", found.losses, found.total)
    return f'{"".join(parts)}<div class="curves">{curves}</div>'


def _bar(found: progress.Progress) -> str:
    share = 100 * max(found.step, 0) / found.total
    return (
        f'<div class="progress" role="progressbar" aria-label="steps" aria-valuenow="{share:.0f}">'
        f'<div style="width:{share:.1f}%"></div></div>'
    )


def _said(state: State, found: progress.Progress) -> str:
    step = f"step {found.step} of {found.total}" if found.step >= 0 else ""
    if state.what == "failed":
        return f"<p>Failed{f' after {step}' if step else ''}. The trainer said:</p>"
    if state.what == "done":
        return "<p>Done.</p>"
    if state.what == "stopped":
        return f"<p>{text.escape(state.message)}</p>"
    if state.what == "stopping":
        return f"<p>Stopping{f' after {step}' if step else ''}; what it kept is exported, about half a minute …</p>"
    if not step:
        return "<p>Starting: the encoder is loaded and sees the texts for the first time, about 20 seconds …</p>"
    if found.step >= found.total:
        return "<p>Trained. The model is exported and checked, about half a minute …</p>"
    rate = f" · {found.rate:,.0f} texts/s" if found.rate else ""
    left = f" · about {_duration(found.left)} left, then the export" if found.left is not None else ""
    return f"<p>{step}{rate}{left}</p>"


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _kept(state: State, found: progress.Progress, key: str | None) -> str:
    if not state.version:
        return ""
    scores = dict(found.scores)
    judge = text.escape(found.judge)
    if found.best_step == 0 and len(scores) > 1:
        kept = f"No step did better than the encoder that it began with, so that one was kept ({judge})."
    elif found.best_step in scores:
        kept = (
            f"Kept: step {found.best_step}; {judge}: {found.scores[0][1]:.1f} → <b>{scores[found.best_step]:.1f}</b>."
        )
    else:
        kept = ""
    where = "Its model is gone."
    if key:
        where = f"<b>{text.escape(key)}</b> is among the models above: the other tabs answer with the one chosen there."
    return f"<p>{kept} {where}</p>"


@lru_cache(maxsize=16)
def _moving(run: Path, steps: tuple[int, ...]) -> str:
    """The picture of a run at these evaluations, drawn once for all visitors."""
    found = motion.of_run(run)
    return motion.picture(found) if found else ""


def build(page: Page, jobs: Jobs) -> tuple[list[Any], Any]:
    """Adds the tab.

    Returns:
        What is filled when the page is opened, and the function that fills it.
    """
    registry = page.registry
    gr.Markdown(
        "Give the encoder texts of yours and watch it learn: texts that belong together draw near, all others part. "
        "Pairs teach most. Of single sentences each is its own partner, read twice with other parts left out."
    )
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            source = gr.Radio(_SOURCES, value="typed", label="Learn from", elem_id="learn-source")
            typed = gr.Textbox(
                label="One sentence a line; or pairs, with | or a tab between the two",
                value=_sample(),
                lines=8,
                max_lines=8,
                elem_id="learn-text",
            )
            file = gr.File(
                label=f"A file (.txt, .csv, .tsv, .jsonl), at most {text.MAX_TRAIN:,} rows",
                file_types=text.SUFFIXES,
                type="filepath",
                height=150,
                visible=False,
                elem_id="learn-file",
            )
            columns = gr.Dropdown(
                [],
                multiselect=True,
                label="its text columns: one; or anchor, positive, hard negatives",
                visible=False,
                elem_id="learn-columns",
            )
            with gr.Row():
                base = gr.Dropdown(
                    _choices(jobs),
                    value=next(iter(jobs.bases()), None),
                    label="Begin with",
                    allow_custom_value=True,
                    min_width=130,
                    elem_id="learn-base",
                )
                # The placeholder is the name if nothing is typed; as a value it would replace what is typed early.
                name = gr.Textbox(
                    label="Call the model",
                    placeholder=jobs.free_name(),
                    max_lines=1,
                    min_width=130,
                    elem_id="learn-name",
                )
            with gr.Accordion("Settings", open=False):
                steps = gr.Slider(10, MAX_STEPS, value=Settings.steps, step=10, label="steps", elem_id="learn-steps")
                temperature = gr.Dropdown(
                    _TEMPERATURES,
                    value=0.0,
                    label="temperature: the lower, the harder near texts are told apart",
                    elem_id="learn-temperature",
                )
                rate = gr.Dropdown(_RATES, value=Settings.learning_rate, label="learning rate", elem_id="learn-rate")
                batch = gr.Dropdown(_BATCHES, value=Settings.batch_size, label="rows in a step", elem_id="learn-batch")
            start = gr.Button("Start", variant="primary", elem_id="learn-start")
            gr.Markdown(f"At most {MINUTES} minutes, one training at a time. It goes on when you close the page.")
        with gr.Column(scale=3, min_width=300):
            with gr.Row():
                chosen = gr.Dropdown(
                    [],
                    label="training",
                    allow_custom_value=True,
                    visible=False,
                    scale=3,
                    min_width=160,
                    elem_id="learn-job",
                )
                stop = gr.Button("Stop", variant="stop", elem_id="learn-stop", visible=False, scale=1, min_width=80)
                delete = gr.Button("Delete", elem_id="learn-delete", visible=False, scale=1, min_width=80)
            said = page.picture(elem_id="learn-status")
            moving = page.picture(value=_WAITING, elem_id="learn-motion", js_on_load=_MOVES)
    seen = gr.State(Seen())
    timer = gr.Timer(_LOOK_EVERY, active=False)
    shown = [chosen, stop, delete, said, moving, page.model, base, seen, timer]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}

    source.change(
        lambda which: [gr.update(visible=which == "typed"), gr.update(visible=which == "file")],
        [source],
        [typed, file],
        **quiet,
    )

    def describe(path: str | None) -> Any:
        names = text.columns(path) if path else []
        try:
            found = choose("", names or None, (), takes_all=bool(path) and FORMATS[Path(str(path)).suffix].takes_all)
            guessed = [*found.texts, *found.beside]
        except UserError:  # the visitor says it
            guessed = []
        return gr.update(choices=names, value=guessed, visible=len(names) > 1)

    file.change(page_errors(describe), [file], [columns], api_visibility="private")

    def look(name: str | None, seen: Seen) -> list[Any]:
        """What has changed since a visitor's last look."""
        names = tuple(job.name for job in jobs.all())
        if not names:
            gone = gr.update(choices=[], value=None, visible=False)
            return [
                gone,
                *[gr.update(visible=False)] * 2,
                "",
                _WAITING,
                *[gr.skip()] * 2,
                Seen(),
                gr.Timer(active=False),
            ]
        # Another visitor may have deleted it.
        name = name if name in names else names[0]
        job = jobs.get(name)
        state = job.state()
        if seen.ended and seen.name == name:
            return [*[gr.skip()] * 8, gr.Timer(active=False)]
        key = _key(registry, state)
        steps = tuple(runs.watched_steps(job.run))
        new = steps != seen.steps or seen.name != name
        # Who watched it learn has it chosen; who looks at an old one chooses for themselves.
        choice = gr.skip()
        if state.ended and key and seen.name == name:
            choice = gr.update(choices=registry.keys(), value=key, visible=True)
        return [
            # A list that is drawn anew closes while somebody chooses.
            gr.skip() if names == seen.names else gr.update(choices=list(names), value=name, visible=True),
            gr.update(visible=not state.ended, interactive=state.what in ("waiting", "running")),
            gr.update(visible=state.ended),
            status(jobs, job, state, key),
            _moving(job.run, steps) if new else gr.skip(),
            choice,
            gr.update(choices=_choices(jobs)) if state.ended or not seen.name else gr.skip(),
            Seen(names, name, steps, state.ended),
            gr.Timer(active=not state.ended),
        ]

    def begin(*given: Any) -> tuple[Any, Any]:
        *rows, base, name, steps, temperature, rate, batch = given
        settings = Settings(base, int(steps), temperature or None, rate, batch)
        job = jobs.start((name or "").strip() or jobs.free_name(), read(*rows), settings)
        every = gr.update(choices=[each.name for each in jobs.all()], value=job.name, visible=True)
        return every, gr.update(value="", placeholder=jobs.free_name())

    def end(name: str) -> None:
        jobs.stop(name)

    def remove(name: str | None) -> None:
        if name:
            jobs.delete(name)

    def opened() -> list[Any]:
        """The training that runs, or the newest; and a name for the next."""
        every = jobs.all()
        first = next((job for job in every if job.state().what in ("running", "stopping")), every[0] if every else None)
        return [*look(first.name if first else None, Seen()), gr.update(placeholder=jobs.free_name())]

    given = [source, typed, file, columns, base, name, steps, temperature, rate, batch]
    begun = start.click(page_errors(begin), given, [chosen, name], api_visibility="private")
    begun.success(look, [chosen, seen], shown, **quiet).then(
        None, None, None, js="() => { simcseLink('learn', {}); simcseShow('learn-status'); }"
    )
    stop.click(page_errors(end), [chosen], None, **quiet).then(look, [chosen, seen], shown, **quiet)
    asked = "(name) => confirm(`Delete the training ${name}, its texts and its steps? Its model stays.`) ? name : null"
    removed = delete.click(page_errors(remove), [chosen], None, js=asked, **quiet)
    removed.then(look, [chosen, seen], shown, **quiet)
    chosen.input(look, [chosen, seen], shown, **quiet)
    timer.tick(look, [chosen, seen], shown, **quiet)
    return [*shown, name], opened


def _choices(jobs: Jobs) -> list[tuple[str, str]]:
    return [(label, base) for base, label in jobs.bases().items()]


def _key(registry: Registry, state: State) -> str | None:
    """The name on the page of the version that a training was exported as."""
    if not state.version:
        return None
    path = Path(state.version)
    key = f"{path.parent.name}/{path.name}"
    return key if key in registry.keys() else None  # noqa: SIM118 - a list


def _sample() -> str:
    """Pairs to begin with: questions to a shop, and where the answer is."""
    return "\n".join(
        f"{question} | {answer}"
        for question, answer in (
            ("Where is my parcel?", "The tracking page shows the last depot that scanned a shipment."),
            ("It has not arrived yet.", "Deliveries take three working days, in rural areas five."),
            ("Can a neighbour take it?", "You can name another person at your address who signs for you."),
            ("I will be on holiday next week.", "The courier keeps consignments for ten days on request."),
            ("Do you ship to Norway?", "We send goods to all countries of the European Economic Area."),
            ("Nobody rang the bell.", "After a failed attempt the driver leaves a card with the pick-up point."),
            ("How do I get my money back?", "Refunds go to the card that was charged, within a week."),
            ("The amount was taken twice.", "Duplicate bookings disappear from your statement by themselves."),
            ("Can I pay later?", "Invoices are due thirty days after the order."),
            ("My card was declined.", "Ask your bank whether online purchases are enabled."),
            ("I need a receipt for my employer.", "A PDF with VAT is under Orders, Documents."),
            ("Is there a discount for students?", "With a university address you pay ten per cent less."),
            ("It does not fit.", "Unworn clothes can be exchanged for another size free of charge."),
            ("The zip is broken.", "Faulty items are repaired or replaced during the first two years."),
            ("I ordered the wrong colour.", "Until it is packed, an order can be changed under My Account."),
            ("How do I send something back?", "Print the label that came by e-mail and hand the box in."),
            ("One sleeve is longer than the other.", "Send us a photo of the defect, and we decide within a day."),
            ("I do not like it any more.", "For thirty days you need not give a reason for a return."),
            ("I forgot my password.", "A link to set a new one is sent to your e-mail address."),
            ("How do I delete my account?", "Under Privacy you can have all personal data erased."),
            ("Stop sending me newsletters.", "Every advertising message has a link to unsubscribe."),
            ("Somebody logged in from abroad.", "End all sessions and switch on two-step verification."),
            ("I moved house.", "Edit the delivery address before you place the next order."),
            ("The app closes by itself.", "Install the latest version and restart your phone."),
        )
    )
