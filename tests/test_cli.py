import json
import os
import subprocess
import sys

import pytest

import simcse_tf
from simcse_tf import cli
from simcse_tf.__main__ import COMMANDS


def python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"} | environment,
    )


class TestLeanImports:
    def test_commands_import_tensorflow_without_what_keras_imports_beside_it(self):
        code = """
import sys
from simcse_tf import cli
with cli.lean_imports():
    import tensorflow
assert "keras" in sys.modules
assert not {"matplotlib", "pandas", "PIL", "scipy", "sklearn"} & set(sys.modules), "imported after all"
import sklearn.linear_model
"""
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_what_is_imported_already_is_not_hidden(self):
        code = """
import sklearn
from simcse_tf import cli
with cli.lean_imports():
    import sklearn as again
assert again is sklearn
import sklearn.linear_model
"""
        subprocess.run([sys.executable, "-c", code], check=True)


# What a TensorFlow could write while it is imported: every kind of line that is left out, and some that are not.
NO_NEWS = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795808739.398557    9927 cudart_stub.cc:31] Could not find cuda drivers on your machine
E0000 00:00:1795808754.333413    9927 cuda_platform.cc:52] failed call to cuInit: INTERNAL: UNKNOWN ERROR (303)
"""
NEWS = """\
E0000 00:00:1795808754.333413    9927 cuda_platform.cc:52] failed call to cuInit: CUDA_ERROR_UNKNOWN (999)
E0000 00:00:1795808754.333413    9927 cuda_dnn.cc:1] Could not create cudnn handle
W0000 00:00:1795808754.333413    9927 gpu_device.cc:1] Cannot dlopen some GPU libraries
F0000 00:00:1795808754.333413    9927 cpu_feature_guard.cc:1] compiled to use AVX instructions
"""


class TestQuiet:
    @pytest.fixture
    def imported(self, tmp_path):
        """Runs `import_tensorflow` with a TensorFlow that writes the lines above and then executes some code."""

        def run(code, after="", **environment):
            (tmp_path / "tensorflow.py").write_text(
                f"import os, types\nos.write(2, {(NO_NEWS + NEWS).encode()!r})\n{code}\n"
                "config = types.SimpleNamespace(list_physical_devices=lambda kind: os.write(2, b'I0000 devices\\n'))\n"
            )
            path = os.pathsep.join([str(tmp_path), *sys.path])
            program = f"import sys\nfrom simcse_tf import quiet\nquiet.import_tensorflow()\n{after}"
            # The one above cannot compute, as the real one does where oneDNN has something to say.
            return python("-c", program, PYTHONPATH=path, TF_ENABLE_ONEDNN_OPTS="0", **environment)

        return run

    def test_lines_that_are_no_news_are_left_out_and_all_others_pass(self, imported):
        done = imported("", "sys.stderr.write('after\\n')")
        assert done.returncode == 0, done.stderr
        assert done.stderr == f"{NEWS}after\n"

    def test_with_level_0_everything_passes(self, imported):
        assert imported("", TF_CPP_MIN_LOG_LEVEL="0").stderr.startswith(NO_NEWS + NEWS)

    def test_stderr_is_restored_after_a_failed_import(self, imported):
        done = imported("raise ImportError('not for this CPU')")
        assert done.stderr.startswith(NEWS)
        assert done.stderr.endswith("ImportError: not for this CPU\n")

    def test_the_last_words_of_an_import_that_kills_the_process_are_heard(self, imported):
        done = imported("os.write(2, b'Illegal instruction, no line end')\nos.abort()")
        assert done.returncode < 0
        assert done.stderr == f"{NEWS}Illegal instruction, no line end"

    def test_the_level_that_the_user_has_set_stays(self, imported):
        after = "import os; sys.stderr.write(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
        assert imported("", after, TF_CPP_MIN_LOG_LEVEL="1").stderr.endswith("1")
        assert imported("", after).stderr.endswith("2")


class TestOneName:
    """`simcse-tf COMMAND`, which is `python -m simcse_tf COMMAND`."""

    def test_help_and_version_and_the_commands_usage(self):
        helped = python("-m", "simcse_tf", "--help")
        assert helped.returncode == 0
        assert all(f"  {command} " in helped.stdout for command in COMMANDS)
        assert python("-m", "simcse_tf").stdout == helped.stdout
        assert simcse_tf.__version__ in python("-m", "simcse_tf", "--version").stdout

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_commands_usage_line_shows_how_it_was_called(self, command):
        done = python("-X", "importtime", "-m", "simcse_tf", command, "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"usage: python -m simcse_tf {command} ")
        assert "tensorflow" not in done.stderr

    def test_an_unknown_command_gets_the_nearest_names(self):
        done = python("-m", "simcse_tf", "trian")
        assert done.returncode == 2
        assert done.stderr == "error: unknown command 'trian'. Did you mean 'train'?\n"

    @pytest.mark.parametrize(
        ("called", "shown"),
        [
            ("/usr/bin/simcse-tf", "simcse-tf train"),
            ("/x/simcse_tf/__main__.py", "python -m simcse_tf train"),
            ("/x/simcse_tf/train.py", "python -m simcse_tf.train"),
        ],
    )
    def test_the_usage_line_is_what_was_typed(self, monkeypatch, called, shown):
        monkeypatch.setattr(sys, "argv", [called])
        assert cli.prog("train") == shown


def test_results_are_json_but_on_a_terminal(capsys, monkeypatch):
    cli.print_result({"a": 1})
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    cli.print_result({"a": 1})
    assert capsys.readouterr().out == ""


def test_a_reader_that_has_read_enough_is_no_error():
    program = f"{sys.executable} -m simcse_tf.train --help | head -n 1"
    done = subprocess.run(program, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
