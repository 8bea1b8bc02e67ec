"""README and docs/ say what is so: folders, links, names, flags, code."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest

import simcse_tf
from benchmarks import objectives, table
from simcse_tf.config import RECIPES, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BENCHMARKS = ROOT / "docs" / "benchmarks" / "index.md"


def blocks(page, language=""):
    """The code blocks of a page, without the indentation that they have inside tabs."""
    fenced = re.findall(r"^( *)```([\w-]*)\n(.*?)^ *```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, name, code in fenced if name == language]


def visible_folders(folder):
    return {
        path.name
        for path in folder.iterdir()
        if path.is_dir() and path.name[0] not in "._" and not path.name.endswith(".egg-info")
    }


def test_the_readmes_tree_is_the_tree_of_folders():
    (tree,) = (code for code in blocks(README) if code.startswith("simcse_tf/"))
    named, stack = {}, []
    for line in tree.splitlines():
        found = re.match(r"( *)(\w+)/", line)
        assert found, line
        stack = [*stack[: len(found[1]) // 2], found[2]]
        named.setdefault("/".join(stack[:-1]), set()).add(found[2])
    made = {"build", "dist", "runs", "site"}
    assert named.pop("") == visible_folders(ROOT) - made
    assert named.pop("simcse_tf") == visible_folders(ROOT / "simcse_tf")
    for folder, below in named.items():
        assert below <= visible_folders(ROOT / folder), folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if not re.match(r"https?://|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python_and_import_public_names(page):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "simcse_tf":
                assert {alias.name for alias in node.names} <= set(simcse_tf.__all__), code


def test_every_public_name_is_in_the_api_reference():
    reference = (ROOT / "docs" / "api.md").read_text("utf-8")
    for name in set(simcse_tf.__all__) - {"__version__"}:
        assert f"::: simcse_tf.{name}\n" in reference, name


def test_the_readme_lists_the_extras():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    install = README.read_text("utf-8").partition("## Install")[2].partition("\n## ")[0]
    extras = re.findall(r"^\| `(\w+)` \|", install, re.MULTILINE)
    assert sorted(extras) == sorted(project["optional-dependencies"].keys() - {"dev"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_training_commands_name_flags_and_recipes_that_exist(page):
    fields = {field.name.replace("_", "-") for field in dataclasses.fields(TrainConfig)}
    text = page.read_text("utf-8").replace("\\\n", " ")
    for command in re.findall(r"(?:simcse-tf train|simcse_tf\.train)\b([^`\n|&]*)", text):
        first = command.split()[:1]
        if first and re.fullmatch(r"[a-z][a-z-]+", first[0]):
            assert first[0] in RECIPES, command
        for flag in re.findall(r"--([a-z][a-z-]*)", command):
            assert flag.removeprefix("no-") in fields | {"help"}, command


def test_every_recipe_is_described_with_its_values():
    rows = (ROOT / "docs" / "recipes.md").read_text("utf-8").splitlines()
    for name, recipe in RECIPES.items():
        if name != "quickstart":
            (row,) = (row for row in rows if row.startswith(f"| `{name}` |"))
            cells = [cell.strip(" `") for cell in row.split("|")[2:7]]
            assert cells[:2] == [recipe.preset, str(recipe.batch_size)]
            assert float(cells[2]) == recipe.learning_rate
            assert cells[3:] == [str(recipe.epochs), recipe.data]


def test_the_speed_tables_are_the_results():
    results = table.markdown(json.loads(table.LATEST.read_text("utf-8")))
    assert results in BENCHMARKS.read_text("utf-8"), "paste the output of python -m benchmarks.table"
    readme = README.read_text("utf-8")
    rows = readme[readme.index(results.splitlines()[0]) :].partition("\n\n")[0].splitlines()
    assert set(rows) <= set(results.splitlines())


def test_the_tables_of_objectives_are_those_of_the_rows():
    page = (ROOT / "docs" / "benchmarks" / "objectives.md").read_text("utf-8")
    assert objectives.markdown(objectives.read(objectives.ROWS), objectives.read_cost()) in page, (
        "paste the output of python -m benchmarks.objectives --table"
    )


def test_the_lines_that_contributing_builds_on_are_in_the_code():
    for code in blocks(ROOT / "CONTRIBUTING.md", "diff"):
        where, *lines = code.splitlines()
        text = (ROOT / where.removeprefix("# ").removeprefix(" # ").strip()).read_text("utf-8")
        for line in lines:
            if line[:1] != "+":
                assert line[1:] in text.splitlines(), f"{where}: {line}"
