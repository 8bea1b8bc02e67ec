"""`python -m simcse_tf.export`: what it refuses, and when; what it writes is in tests/formats."""

import re
import subprocess
import sys

import pytest

from simcse_tf import cli, export
from simcse_tf.errors import UserError
from simcse_tf.formats import presets
from tests.conftest import TENSORFLOWS_LINES


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["runs/nope", "--to", "x"], "^runs/nope: no such directory"),
        (["{preset}", "--to", "file"], "--to file: file is a file"),
        (["{preset}", "--to", "file/model"], "--to file/model: file is a file"),
        (["{preset}", "--to", "directory", "--format", "huggingface"], "--to directory: exists"),
        (["{preset}", "--to", "directory", "--format", "keras-hub"], "--to directory: exists"),
        (["{preset}", "--to", "x", "--max-length", "2"], "`max_length` 2: must be at least 3"),
        (["{preset}", "--to", "x", "--dim", "17"], "`dim` 17: the vectors of this encoder have 16 numbers"),
        (["{preset}", "--to", "directory", "--format", "litert"], "--to directory: exists"),
        (["{preset}", "--to", "x", "--quantize", "int8"], "--quantize int8: only --format litert, mediapipe and"),
        (["saved", "--to", "x"], "saved: is an exported model already"),
        (["lite", "--to", "x"], "lite: is an exported model already"),
    ],
)
def test_what_cannot_be_is_said_before_tensorflow_is_imported(tiny_preset, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "directory").mkdir()
    (tmp_path / "saved" / "1").mkdir(parents=True)
    (tmp_path / "saved" / "1" / "saved_model.pb").write_bytes(b"")

    (tmp_path / "lite").mkdir()
    for name in ("model.tflite", "encoder.json"):
        (tmp_path / "lite" / name).write_bytes(b"")

    def imported():
        raise AssertionError("TensorFlow was imported")

    monkeypatch.setattr("simcse_tf.quiet.import_tensorflow", imported)
    with pytest.raises(UserError, match=message):
        export.main([flag.format(preset=tiny_preset) for flag in flags])
    assert not (tmp_path / "x").exists()


def test_arguments_are_called_what_they_are(capsys):
    with pytest.raises(SystemExit):
        export.main(["--help"])
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].endswith(" RUN")
    assert "None}" not in shown
    assert "│ STR" not in shown  # as a positional argument would be


def test_the_command_line_says_where_the_export_is_and_nothing_of_tensorflows(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "simcse_tf.export",
            str(tiny_preset),
            "--to",
            str(tmp_path / "x"),
            "--format",
            "keras-hub",
            "--query-prompt",
            "query: ",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'x'}\n"
    assert not re.search(TENSORFLOWS_LINES, done.stderr), done.stderr
    exported = presets.locate(str(tmp_path / "x")).config
    assert exported is not None
    assert exported.prompts == {"query": "query: ", "passage": ""}


def test_a_directory_without_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cli.os, "access", lambda *_: False)
    with pytest.raises(UserError, match=f"--to {tmp_path / 'a' / 'b'}: no permission to write in {tmp_path}"):
        cli.check_directory(tmp_path / "a" / "b", "--to")
