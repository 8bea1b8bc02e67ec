"""The scripts of examples/, run as they stand on a tiny BERT and for few steps, and the README's Keras example."""

import csv
import inspect
import itertools
import re
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import tiny
from tests import conftest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs an example in an empty directory and gives what it printed."""

    def run(name, *flags):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [name, *map(str, flags)])
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def test_keras_fit_keeps_a_model_that_encodes(run, tiny_preset, tmp_path):
    out = run("keras_fit.py", "--preset", tiny_preset, "--steps", 2, "--epochs", 2)
    assert out.rstrip().endswith("(1, 16)")
    assert (tmp_path / "best.keras").is_file()


def test_supervised_triplets_scores_and_saves(run, tiny_preset, triplets_file, tmp_path):
    from simcse_tf import SentenceEncoder

    out = run("supervised_triplets.py", "--preset", tiny_preset, "--triplets", triplets_file)
    assert re.search(r"-?\d+\.\d\d before, -?\d+\.\d\d after", out)
    assert SentenceEncoder.from_preset(str(tmp_path / "my_encoder")).encode("a dog").shape == (16,)


def test_search_finds_a_sentence_that_is_there(run, tiny_preset, sentences_file):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'simcse-tf[index]'")
    out = run("search.py", "a dog sleeps near the river .", "--texts", sentences_file, "--model", tiny_preset)
    assert out.splitlines()[0] == "1.000  a dog sleeps near the river ."
    assert len(out.splitlines()) == 5


def test_evaluate_your_model_scores_a_function_of_ones_own(run):
    score = re.search(r"bundled +(\d+\.\d\d)", run("evaluate_your_model.py"))
    assert score is not None
    assert 0 < float(score[1]) < 66


GOOGLE = """Finds the nearest neighbours of a point.

    Args:
        point: In the plane."""
NUMPY = """Finds the nearest neighbours of a point.

    All of the points are compared with it, so that the time is linear.

    Parameters
    ----------
    point : tuple
        This text is of the parameter and not of the function."""
DIRECTIVE = """Finds the nearest neighbours
    of a :class:`~geometry.Point` in the plane.

    .. versionadded:: 1.2

    >>> neighbours(a)

    All of the ``points`` are compared with *it*, so that the time is linear.

    :param point: In the plane."""
GERMAN = """Gibt die nächsten Nachbarn eines Punktes zurück.

    Alle Punkte werden mit ihm verglichen, in linearer Zeit."""
LINEAR = "All of the points are compared with it, so that the time is linear."


@pytest.fixture(scope="module")
def docs_search():
    """The functions of examples/docs_search.py."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "docs_search.py")))


@pytest.mark.parametrize(
    ("docstring", "texts"),
    [
        (GOOGLE, None),
        (NUMPY, ("Finds the nearest neighbours of a point.", LINEAR)),
        (DIRECTIVE, ("Finds the nearest neighbours of a geometry.Point in the plane.", LINEAR)),
        ("TODO.", None),
        (GERMAN, None),
    ],
    ids=["google", "numpy", "directive", "short", "german"],
)
def test_docs_search_takes_summary_and_first_paragraph(docs_search, docstring, texts):
    assert docs_search.summary_and_paragraph(inspect.cleandoc(docstring)) == texts


def test_docs_search_leaves_out_texts_that_go_with_several(docs_search):
    texts = [
        ("Returns the value.", "It is the one that was set."),
        ("returns the value", "It is the one that was set!"),
        ("Makes a copy.", "It is deep."),
        ("Makes a copy.", "It is shallow."),
        ("Closes the file.", "Nothing happens if it was done before."),
        ("Closes the socket.", "Nothing happens if it was done before."),
    ]
    entries = [docs_search.Entry("a.py", str(i), *pair) for i, pair in enumerate(texts)]
    assert docs_search.unambiguous(entries) == entries[:1]


@pytest.fixture
def packages(tmp_path):
    """50 modules with 8 documented functions each, in the tiny BERT's words; and what is not read."""
    nouns, verbs = (
        ("man", "woman", "child", "dog", "cat"),
        ("plays", "eats", "runs", "sleeps", "sings", "reads", "rides"),
    )
    things = ("boat", "car", "house", "tree", "river", "guitar", "piano", "ball", "book", "bread", "apple", "horse")
    functions = [
        f'def {verb}_{i}():\n    """A {noun} {verb} near the {thing}.\n\n'
        f'    The old {thing} is in the house of a {noun} and {verb} on it.\n    """\n'
        for i, (noun, verb, thing) in enumerate(itertools.product(nouns, verbs, things))
    ]
    folder = tmp_path / "packages"
    (folder / "made_up" / "tests").mkdir(parents=True)
    for i in range(50):
        (folder / "made_up" / f"module_{i}.py").write_text("\n".join(functions[8 * i : 8 * i + 8]), "utf-8")
    (folder / "made_up" / "python2.py").write_text("print 'old'\n", "utf-8")
    (folder / "made_up" / "tests" / "test_it.py").write_text(functions[-1], "utf-8")
    return folder


def test_docs_search_splits_by_file_without_a_text_on_both_sides(docs_search, packages, tmp_path):
    docs_search.write_corpus([packages], tmp_path)
    parts = {}
    for name in ("train", "development", "test"):
        with (tmp_path / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            parts[name] = [tuple(row) for row in csv.reader(file)][1:]
    texts = [text for part in parts.values() for pair in part for text in pair]
    assert len(texts) == len(set(texts)) == 800
    assert all(len(part) >= 20 for part in parts.values())
    documents = (tmp_path / "documents.txt").read_text("utf-8").splitlines()
    assert documents[0] == (
        "made_up.module_0.plays_0: A man plays near the boat. The old boat is in the house of a man and plays on it."
    )


def test_docs_search_trains_and_answers_and_then_only_answers(run, packages, tmp_path, capsys):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'simcse-tf[index]'")
    preset = tmp_path / "preset"
    tiny.make_preset(preset, conftest.VOCABULARY, layers=1, dim=16, positions=64)
    flags = ("--packages", packages, "--preset", preset, "--steps", 2)
    question = "A woman reads near the river. The old river is in the house of a woman and reads on it."
    with conftest.unchecked():
        out = run("docs_search.py", question, *flags)
    assert re.match(r"\d\.\d+  made_up\.module_\d+\.", out)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    assert run("docs_search.py", question, *flags) == out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == files
    with pytest.raises(SystemExit, match="2"):
        run("docs_search.py", question, *flags, "--seed", 43)
    assert "was made with --seed 42. Give another directory." in capsys.readouterr().err


@pytest.mark.parametrize(("folder", "message"), [("empty", "too few pairs"), ("none", "--packages none: is not a")])
def test_docs_search_refuses_folders_without_docstrings(run, tmp_path, capsys, folder, message):
    pytest.importorskip("faiss", reason="faiss is not installed: pip install 'simcse-tf[index]'")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="2"):
        run("docs_search.py", "--packages", folder)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_keras_example_of_the_readme_runs_as_it_stands_but_for_the_preset(tiny_preset, tmp_path, monkeypatch):
    from simcse_tf import open_source

    monkeypatch.chdir(tmp_path)
    texts = [text for (text,) in open_source("bundled").rows()][:128]
    (tmp_path / "sentences.txt").write_text("\n".join(texts), "utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    code = next(code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "from_preset" in code)
    assert code.count('"minilm"') == 1
    exec(code.replace('"minilm"', repr(str(tiny_preset))), {})
    assert (tmp_path / "best.keras").is_file()
