"""All commands behind one name: `simcse-tf COMMAND [flags]`, or `python -m simcse_tf COMMAND [flags]`."""

from __future__ import annotations

import importlib

import simcse_tf
from simcse_tf import cli
from simcse_tf.errors import UserError, did_you_mean

# Module and description of each command; modules have a `main(arguments)`.
COMMANDS = {
    "train": ("simcse_tf.train", "train a sentence encoder, export it and report what changed"),
    "evaluate": ("simcse_tf.evaluate", "score an encoder on graded pairs, STS and transfer tasks"),
    "encode": ("simcse_tf.encode", "encode a file of texts as an array of vectors"),
    "mine": ("simcse_tf.mine", "find hard negatives for pairs"),
    "deduplicate": ("simcse_tf.deduplicate", "leave out the rows of a file that repeat others"),
    "export": ("simcse_tf.export", "export an encoder for TensorFlow Serving or another library"),
    "serve": ("simcse_tf.serve", "serve a model over HTTP, without TensorFlow where it needs none"),
    "ablate": ("simcse_tf.ablate", "compare settings over several seeds"),
    "demo": ("simcse_tf.demo.__main__", "explore exported models in a browser"),
}


def main() -> None:
    """The console script `simcse-tf`."""
    cli.run(_dispatch)


def _dispatch(arguments: list[str]) -> None:
    command, *rest = arguments or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        print(f"simcse_tf {simcse_tf.__version__}")
    elif command in COMMANDS:
        importlib.import_module(COMMANDS[command][0]).main(rest)
    else:
        raise UserError(f"unknown command '{command}'. {did_you_mean(command, COMMANDS)}")


def _help() -> str:
    called = cli.prog("COMMAND")
    lines = [f"usage: {called} [flags]", "       " + called.replace("COMMAND", "--version"), ""]
    lines += [f"  {name:<13}{description}" for name, (_, description) in COMMANDS.items()]
    return "\n".join([*lines, "", f"{called} --help lists a command's flags."])


if __name__ == "__main__":
    main()
