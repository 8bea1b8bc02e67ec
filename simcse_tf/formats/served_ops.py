"""What a tensorflow/serving image can run, and whether an exported model keeps to it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from simcse_tf.errors import UserError

Target = Literal["2.19", "2.20"]
# The oldest: what it runs, the newer ones run too.
OLDEST: Target = get_args(Target)[0]


class Versions(NamedTuple):
    """What an image is linked with."""

    tensorflow: str
    text: str
    # The TensorFlow whose libraries the wheel of that tensorflow-text can be loaded beside.
    text_built_for: str


# Images up to 2.19.1 are linked with a tensorflow-text of 2023.
TARGETS: dict[str, Versions] = {
    "2.19": Versions("2.19.1", "2.12.1", "2.12.1"),
    "2.20": Versions("2.20.0", "2.20.0", "2.20.0"),
}
# Operation, its attributes, the images that have it. Written by tools/make_served_ops.py.
TABLE = Path(__file__).with_name("served_ops.tsv")


def graph_operations(directory: Path) -> dict[str, set[str]]:
    """The operations of a SavedModel, in its graph and its functions, with the attributes that they carry.

    Raises:
        UserError: A part of the graph can only run compiled by XLA.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    operations: dict[str, set[str]] = {}
    for graph in (meta.graph_def for meta in model.meta_graphs):
        functions = {function.signature.name for function in graph.library.function}
        for where, nodes, attributes in _parts(graph):
            if attributes is not None and attributes["_XlaMustCompile"].b:
                raise UserError(
                    f"{directory}: '{where}' must be compiled by XLA, which tensorflow/serving does not do by default. "
                    "Export without jit_compile."
                )
            for node in nodes:
                if node.op not in functions:
                    # A leading underscore marks a hint for the runtime, which it may ignore.
                    names = {name for name in node.attr if not name.startswith("_")}
                    operations.setdefault(node.op, set()).update(names)
    return operations


def _parts(graph: Any):
    """The graph and its functions: a name, nodes, and the function's attributes."""
    yield "the graph", graph.node, None
    for function in graph.library.function:
        yield function.signature.name, function.node_def, function.attr


def check(directory: Path, target: Target) -> None:
    """Checks that a server can run a SavedModel.

    Raises:
        UserError: The image lacks an operation of the graph, or knows an older form of it; names it and the way out.
    """
    for operation, attributes in sorted(graph_operations(directory).items()):
        unknown = _missing(operation, attributes, target)
        if unknown is None:
            continue
        newer = [t for t in TARGETS if _missing(operation, attributes, t) is None]
        way_out = f"`target_serving` {newer[0]} has it." if newer else "No supported tensorflow/serving has it."
        raise UserError(
            f"the graph has {unknown}, which tensorflow/serving {target} does not know, so it could not load the "
            f"model. {way_out} Otherwise keep it out of the graph: it comes from the tokenizer, the pooler or a layer."
        )


def _missing(operation: str, attributes: set[str], target: str) -> str | None:
    known = _table().get((operation, target))
    if known is None:
        return f"the operation '{operation}'"
    new = sorted(attributes - known)
    return f"the attribute '{new[0]}' of the operation '{operation}'" if new else None


@cache
def _table() -> dict[tuple[str, str], frozenset[str]]:
    table = {}
    for line in TABLE.read_text("utf-8").splitlines():
        operation, attributes, targets = line.split("\t")
        for target in targets.split(","):
            table[operation, target] = frozenset(attributes.split(",")) if attributes else frozenset()
    return table
