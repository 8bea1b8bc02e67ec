"""The scripts of examples/, run as they stand on a tiny BERT and for few steps, and the README's Keras example."""

import re
import runpy
import sys
from pathlib import Path

import pytest

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
