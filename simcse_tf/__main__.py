"""All commands behind one name: `simcse-tf COMMAND [flags]`, or `python -m simcse_tf COMMAND [flags]`."""

from __future__ import annotations

import importlib
from functools import partial

import simcse_tf
from simcse_tf import cli

# Module and description of each command; modules have a `main(arguments)`.
COMMANDS = {
    "train": ("simcse_tf.train", "train a sentence encoder, export it and report what changed"),
    "evaluate": ("simcse_tf.evaluate", "score an encoder on graded pairs, STS and transfer tasks"),
    "encode": ("simcse_tf.encode", "encode a file of texts as an array of vectors, or as Parquet"),
    "mine": ("simcse_tf.mine", "find hard negatives for pairs"),
    "deduplicate": ("simcse_tf.deduplicate", "leave out the rows of a file that repeat others"),
    "index": ("simcse_tf.index", "build, change and search an index of texts"),
    "paraphrases": ("simcse_tf.paraphrases", "find texts that say the same: pairs and communities"),
    "export": ("simcse_tf.export", "export an encoder for TensorFlow Serving or another library"),
    "serve": ("simcse_tf.serve", "serve a model over HTTP, without TensorFlow where it needs none"),
    "ablate": ("simcse_tf.ablate", "compare settings over several seeds"),
    "demo": ("simcse_tf.demo.__main__", "explore exported models in a browser"),
}


def main() -> None:
    """The console script `simcse-tf`."""
    cli.run(_dispatch)


def _dispatch(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        print(f"simcse_tf {simcse_tf.__version__}")
        return
    commands = {name: (partial(_run, module), description) for name, (module, description) in COMMANDS.items()}
    cli.dispatch(commands, arguments, cli.prog("COMMAND"))


def _run(module: str, arguments: list[str]) -> None:
    importlib.import_module(module).main(arguments)


if __name__ == "__main__":
    main()
