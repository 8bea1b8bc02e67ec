"""What the commands share: flags from a dataclass, errors without a traceback. No TensorFlow."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from rich.console import Console

from simcse_tf.errors import UserError

T = TypeVar("T")


def parse(cls: type[T], arguments: Sequence[str], *, prog: str, description: str, default: T | None = None) -> T:
    """Makes a dataclass from flags; `--help` and wrong flags end the process as argparse would.

    Args:
        cls: A dataclass; its fields are the flags, their comments the help.
        arguments: Without the program's name.
        prog: What the user types.
        description: For `--help`.
        default: Where the defaults come from, if not from the class.
    """
    import tyro

    if default is None:
        return tyro.cli(cls, args=list(arguments), prog=prog, description=description)
    return tyro.cli(cls, args=list(arguments), prog=prog, description=description, default=default)


def run(main: Callable[[list[str]], None]) -> None:
    """Runs a command: `UserError` becomes a message on stderr and exit status 2, Ctrl-C status 130."""
    # Before TensorFlow starts: its C++ side calls a machine without GPU an error. Real errors come as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        main(sys.argv[1:])
    except UserError as e:
        print(f"error: {e.for_command()}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """While a command imports TensorFlow: Keras does without what it would import too, wherever that is installed.

    With scikit-learn, pandas and matplotlib Keras offers wrappers, adapters and plots that no command uses, for up to
    145 MiB and a third of the time of the import. They can be imported as ever afterwards.
    """
    hidden = [name for name in ("matplotlib", "pandas", "sklearn") if name not in sys.modules]
    modules: dict[str, Any] = sys.modules
    # None turns an import into an ImportError, for which Keras is prepared.
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]


def console() -> Console:
    """Progress goes to stderr: stdout carries results only."""
    return Console(stderr=True, soft_wrap=True, highlight=False)
