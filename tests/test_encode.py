import subprocess
import sys

import numpy as np
import pytest

from simcse_tf import encode, export
from simcse_tf.errors import UserError
from simcse_tf.models import presets
from simcse_tf.models.saved import load_encoder
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def saved_model(tiny_preset, tmp_path_factory, request):
    directory = tmp_path_factory.mktemp("models") / "tiny"
    export.main([str(tiny_preset), "--to", str(directory), "--pooling", "avg", "--max-length", "16"])
    return directory


def test_the_export_command_numbers_versions(saved_model, tiny_preset, capsys):
    assert (saved_model / "1" / "saved_model.pb").is_file()
    export.main([str(tiny_preset), "--to", str(saved_model)])
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(saved_model / "2")


def test_row_i_belongs_to_line_i(tiny_preset, saved_model, tmp_path):
    lines = [*SENTENCES[:10], "", "caf\u00e9 \U0001f600", "dog " * 50]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", "utf-8")
    model = str(saved_model / "1")
    encode.main(
        [model, "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.npy"), "--batch-size", "4"]
    )
    vectors = np.load(tmp_path / "out.npy")
    from simcse_tf.config import EncoderConfig

    live = load_encoder(presets.locate(str(tiny_preset)), EncoderConfig("avg", "none", 16))
    np.testing.assert_allclose(vectors, live.encode(lines), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_command_line_runs_on_a_preset(tiny_preset, tmp_path):
    (tmp_path / "in.txt").write_text("a dog\nthe cat\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "simcse_tf.encode", str(tiny_preset), "--input", "in.txt", "--output", "out.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.npy: 2 x 16\n"
    assert np.load(tmp_path / "out.npy").shape == (2, 16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "none.txt", "--output", "x.npy"], "--input none.txt: no such file"),
        (["--input", "in.txt", "--output", "x.csv"], "must end in .npy"),
        (["--input", "in.txt", "--output", "no/x.npy"], "the directory no does not exist"),
        (["--input", "in.txt", "--output", "old.npy"], "exists. Replace it with --overwrite"),
        (["--input", "in.txt", "--output", "x.npy", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--input", "empty.txt", "--output", "x.npy"], r"empty.txt: empty \(0 lines\)"),
        (["--input", "latin.txt", "--output", "x.npy"], r"latin.txt:2: byte 0xe9 at position 4 is no UTF-8"),
    ],
)
def test_bad_input(tiny_preset, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a dog\n", "utf-8")
    (tmp_path / "old.npy").write_bytes(b"x")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(UserError, match=message):
        encode.main([str(tiny_preset), *flags])
    assert (tmp_path / "old.npy").read_bytes() == b"x"
    assert not (tmp_path / "x.npy").exists()


def test_no_model_there(tmp_path):
    (tmp_path / "in.txt").write_text("a\n", "utf-8")
    with pytest.raises(UserError, match="no such directory"):
        encode.main(["./nowhere", "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "x.npy")])
