import os

import pytest

from simcse_tf.errors import UserError
from simcse_tf.files import point_to, read_json, read_json_object, whole_directory


def test_a_directory_appears_when_it_is_complete(tmp_path):
    with whole_directory(tmp_path / "a" / "b") as directory:
        (directory / "file").write_text("x", "utf-8")
        assert not (tmp_path / "a" / "b").exists()
    assert (tmp_path / "a" / "b" / "file").read_text("utf-8") == "x"
    assert os.listdir(tmp_path / "a") == ["b"]


def test_nothing_is_left_of_a_failure(tmp_path):

    def fail_halfway():
        with whole_directory(tmp_path / "b") as directory:
            (directory / "file").write_text("x", "utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert os.listdir(tmp_path) == []


def test_an_existing_directory_is_not_replaced(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").touch()
    with pytest.raises(FileExistsError), whole_directory(tmp_path / "b"):
        pass
    assert os.listdir(tmp_path) == ["b"]
    assert os.listdir(tmp_path / "b") == ["old"]


def test_a_link_moves_from_one_target_to_another(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_to(tmp_path / "best", tmp_path / name)
        assert (tmp_path / "best").resolve() == (tmp_path / name).resolve()
    assert sorted(os.listdir(tmp_path)) == ["best", "one", "two"]


@pytest.mark.parametrize(
    ("content", "line"),
    [(b'{"a": 1,\n "b": }\n', 2), (b'{"a": 1,\n\n "b": "\xff"}', 3), (b"", 1), (b"[" * 100_000, 1)],
)
def test_what_is_not_json_is_named_with_its_line(tmp_path, content, line):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"config\.json:{line}: not JSON"):
        read_json(path)


def test_json_is_read_with_and_without_a_byte_order_mark(tmp_path):
    path = tmp_path / "config.json"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text('{"a": "ä"}', encoding)
        assert read_json(path) == {"a": "ä"}


def test_a_json_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone\.json"):
        read_json(tmp_path / "gone.json")


def test_json_that_is_not_an_object_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[1]", "utf-8")
    with pytest.raises(UserError, match=r"config\.json: expected a JSON object"):
        read_json_object(path)
    path.write_text('{"a": 1}', "utf-8")
    assert read_json_object(path) == {"a": 1}
