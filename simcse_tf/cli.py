"""What the commands share: flags from a dataclass, errors without a traceback, results on stdout. No TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import re
import sys
import time
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.files import write_whole
from simcse_tf.quiet import hidden

T = TypeVar("T")


def prog(command: str) -> str:
    """How a command was called: `simcse-tf train`, `python -m simcse_tf train` or `python -m simcse_tf.train`."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py" and called.parent.name == "simcse_tf":
        return f"python -m simcse_tf {command}"
    return f"simcse-tf {command}" if called.stem == "simcse-tf" else f"python -m simcse_tf.{command}"


def dispatch(
    commands: Mapping[str, tuple[Callable[[list[str]], None], str]], arguments: list[str], called: str
) -> None:
    """Runs one of several commands, or lists them.

    Args:
        commands: What runs each, and what it does.
        arguments: The command's name and its own arguments; without any, or with `--help`, they are listed.
        called: What the user types, with COMMAND for the name.

    Raises:
        UserError: There is no such command.
    """
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        lines = [f"usage: {called} [flags]", ""]
        lines += [f"  {name:<13}{description}" for name, (_, description) in commands.items()]
        print("\n".join([*lines, "", f"{called} --help lists a command's flags."]))
    elif command in commands:
        commands[command][0](rest)
    else:
        raise UserError(f"unknown command '{command}'. {did_you_mean(command, commands)}")


def parse(cls: type[T], arguments: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """Makes a dataclass from flags; `--help` and wrong flags end the process as argparse would.

    Args:
        cls: A dataclass. Its fields are the flags, the comments above them the help. A comment `# --- Data ---` begins
            a group of flags in the help. Flags of the classes that it inherits from come last.
        arguments: Without the program's name.
        prog: What the user types.
        description: For `--help`.
        default: Where the defaults come from, if not from the class.
    """
    import tyro

    sections: dict[str, list[tuple[str, Any, Any]]] = {}
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for section, name, comment in _comments(cls):
        value = fields[name].default if default is None else getattr(default, name)
        hint = typing.Annotated[hints[name], _argument(tyro, hints[name], name, comment, value)]
        sections.setdefault(section, []).append((name, hint, dataclasses.field(default=value)))
    groups = []
    for title, flags in sections.items():
        group = dataclasses.make_dataclass(f"{title}Flags", flags, kw_only=True)
        # tyro titles the group by this name, and leaves it out of the flags.
        groups.append((f"group{len(groups)}", typing.Annotated[group, tyro.conf.arg(name=title.lower())]))
    grouped = dataclasses.make_dataclass(cls.__name__, groups)
    made = tyro.cli(
        grouped, args=list(arguments), prog=prog, description=description, config=(tyro.conf.OmitArgPrefixes,)
    )
    values: dict[str, Any] = {}
    for group in vars(made).values():
        values |= vars(group)
    return cls(**values)


def _comments(cls: type) -> Iterator[tuple[str, str, str]]:
    """Section, name and comment of each field, from the source of the class and of those that it inherits from."""
    section, comment = "", []
    for line in "".join(map(inspect.getsource, filter(dataclasses.is_dataclass, cls.__mro__))).splitlines():
        text = line.strip()
        if title := re.fullmatch(r"# --- (.*) ---", text):
            section = title[1]
        elif text.startswith("# "):
            comment.append(text[2:])
        elif field := re.match(r"    (\w+): ", line):
            yield section, field[1], " ".join(comment)
            comment = []
        else:
            comment = []


def _argument(tyro: Any, hint: Any, name: str, comment: str, default: Any) -> Any:
    """How a flag is shown. A default of nothing is left out: the comment says what happens without the flag."""
    metavar = None
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    if tyro.conf.Positional in kinds:
        metavar = name.upper() if default is dataclasses.MISSING else f"[{name.upper()}]"
    elif typing.get_origin(hint) is tuple:
        metavar = f"{kinds[0].__name__.upper()} ..."
    elif types.NoneType in typing.get_args(hint):
        metavar = "|".join(
            "{" + ",".join(values) + "}" if (values := typing.get_args(kind)) else kind.__name__.upper()
            for kind in kinds
        )
    nothing = default is None or default == ()
    return tyro.conf.arg(help=comment, metavar=metavar, help_behavior_hint="" if nothing else None)


def check_directory(to: Path, flag: str) -> None:
    """Checks that a directory can be made, or written into if it exists.

    Raises:
        UserError: A file is in the way, or the permission is missing.
    """
    existing = next(path for path in (to, *to.parents) if path.exists())
    if not existing.is_dir():
        raise UserError(f"{flag} {to}: {existing} is a file. Choose another directory.")
    if not os.access(existing, os.W_OK):
        raise UserError(f"{flag} {to}: no permission to write in {existing}.")


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command: `UserError` becomes a message on stderr and exit status 2, Ctrl-C status 130."""
    try:
        main(sys.argv[1:])
        sys.stdout.flush()
    except UserError as e:
        print(f"error: {e.for_command()}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # Who reads our output has read enough, as `head` does. Python must not find out again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def lean_imports() -> contextlib.AbstractContextManager[None]:
    """While a command imports TensorFlow: Keras does without what it would import too, wherever that is installed.

    With these Keras, and the one of old that is a part of TensorFlow, offer wrappers, adapters and plots that no
    command uses, for 145 MiB and up to half of the time of the import. They can be imported as ever
    afterwards.
    """
    return hidden("matplotlib", "pandas", "PIL", "scipy", "sklearn")


def console() -> Console:
    """Progress goes to stderr: stdout carries results only."""
    return Console(stderr=True, soft_wrap=True, highlight=False)


@contextlib.contextmanager
def phase(console: Console, what: str) -> Iterator[None]:
    """Shows that something long is being done, and for how long; on a terminal as it goes, elsewhere at its end."""
    began = time.monotonic()
    if not console.is_terminal:
        console.print(f"{what} ...")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        bar.add_task(what, total=None)
        yield
    console.print(f"{what}: done in {time.monotonic() - began:.0f} s")


class Counted:
    """Shows how many are done, how many a second and the time left; on a terminal as a bar, elsewhere now and then.

    Args:
        console: Where to show it.
        what: What is being done: "encoding".
        unit: What is counted: "texts".
        total: How many there are.
    """

    def __init__(self, console: Console, what: str, unit: str, total: int):
        rate = TextColumn(f"{{task.fields[rate]:,.0f}} {unit}/s")
        columns = [*Progress.get_default_columns(), MofNCompleteColumn(), rate]
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(what, total=total, rate=0.0)
        self._console, self._what, self._unit, self._total = console, what, unit, total
        self._first: int | None = None

    def __enter__(self) -> Counted:
        self._bar.start()
        self._began = self._said = time.monotonic()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def update(self, done: int) -> None:
        """Shows that so many are done; the first call says where this process begins."""
        now = time.monotonic()
        if self._first is None:
            self._first, self._began = done, now
            self._bar.reset(self._task, completed=done)
        rate = (done - self._first) / max(now - self._began, 1e-9)
        self._bar.update(self._task, completed=done, rate=rate)
        if not self._console.is_terminal and rate and (now - self._said > 15 or done == self._total):
            self._said = now
            left = timedelta(seconds=round((self._total - done) / rate))
            counts = f"{done:,} of {self._total:,} {self._unit}  {rate:,.0f} {self._unit}/s"
            self._console.print(f"{self._what}: {counts}  {left} left")


def print_result(result: dict[str, Any]) -> None:
    """Prints a result as JSON, for programs: on a terminal somebody reads the table that was printed before it."""
    if not sys.stdout.isatty():
        print(json.dumps(result, indent=2))


def hand_over(result: dict[str, Any], file: Path | None) -> None:
    """Writes a result as JSON, with its texts as they are read, into a file; without one, prints it as above."""
    if file is None:
        print_result(result)
    else:
        write_whole(file, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
