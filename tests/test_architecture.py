"""Imports run one way: `ORDER` is the flow, and each folder imports only from those before it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "simcse_tf"
# What stands below all folders; what stands above them is everything else at the root.
BELOW = {"checks", "config", "errors", "files", "network", "quiet", "runs"}
ORDER = ["data", "serving", "models", "formats", "evaluation", "training", "report"]


def imports(path):
    """Every module of ours that a file imports, in functions too: `simcse_tf.data.rows`, ..."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def parts_of_ours(path):
    return {name.split(".")[1] for name in imports(path) if name.startswith("simcse_tf.")}


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_from_folders_before_it(folder):
    allowed = {*BELOW, *ORDER[: ORDER.index(folder) + 1], "__version__"}
    for path in (PACKAGE / folder).glob("**/*.py"):
        assert parts_of_ours(path) <= allowed, path


def test_what_stands_below_imports_no_folder():
    for name in BELOW:
        path = PACKAGE / f"{name}.py"
        assert parts_of_ours(path) <= BELOW, path


def test_the_page_never_imports_the_trainer():
    allowed = {*BELOW, "cli", "data", "demo", "evaluation", "serving"}
    for path in (PACKAGE / "demo").glob("**/*.py"):
        # Of formats it knows only which presets are on this machine.
        used = {name for name in imports(path) if name != "simcse_tf.formats.presets"}
        assert {name.split(".")[1] for name in used if name.startswith("simcse_tf.")} <= allowed, path
        assert not any(name.split(".")[0] in ("keras", "tensorflow") for name in used), path
