"""A folder imports only from folders above it; the table is the flow."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["data", "models", "evaluation", "training", "serving"]
# Imports across the flow that the order allows but the design does not.
FORBIDDEN = {("serving", "training")}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_from_folders_above_it(folder):
    allowed = {f for f in ORDER[: ORDER.index(folder) + 1] if (folder, f) not in FORBIDDEN}
    for path in (ROOT / "simcse_tf" / folder).glob("**/*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "simcse_tf" and len(parts) > 1 and parts[1] in ORDER:
                assert parts[1] in allowed, f"{path} imports {name}"


def test_the_demo_knows_the_client_alone():
    for path in (ROOT / "demo").glob("**/*.py"):
        for name in imports(path):
            assert not name.startswith(("simcse_tf.training", "keras")), f"{path} imports {name}"


def test_no_file_is_longer_than_it_should_be():
    for path in (ROOT / "simcse_tf").glob("**/*.py"):
        assert len(path.read_text("utf-8").splitlines()) <= 300, f"{path} asks to be split"
