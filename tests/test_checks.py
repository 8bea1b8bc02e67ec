import pytest

from simcse_tf.checks import require
from simcse_tf.errors import UserError


def test_a_package_that_is_missing_is_named_with_its_extra():
    with pytest.raises(UserError, match=r"a map needs drawing, which is not installed.*'simcse-tf\[report\]'"):
        require("no_such_package", "report", "a map needs drawing")


def test_a_package_that_is_there_is_enough():
    require("pytest", "report", "a test needs pytest")
