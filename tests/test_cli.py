import subprocess
import sys


def test_commands_import_tensorflow_without_what_keras_imports_beside_it():
    code = """
import sys
from simcse_tf import cli
with cli.lean_imports():
    import tensorflow
assert "keras" in sys.modules
assert not {"matplotlib", "pandas", "sklearn"} & set(sys.modules), "imported after all"
import sklearn.linear_model
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_imported_already_is_not_hidden():
    code = """
import sklearn
from simcse_tf import cli
with cli.lean_imports():
    import sklearn as again
assert again is sklearn
import sklearn.linear_model
"""
    subprocess.run([sys.executable, "-c", code], check=True)
