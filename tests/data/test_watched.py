"""The file of texts to watch."""

import pytest

from simcse_tf.data.watched import read
from simcse_tf.errors import UserError


@pytest.fixture
def write(tmp_path):
    def to(name, content):
        (tmp_path / name).write_text(content, "utf-8")
        return tmp_path / name

    return to


def test_lines_stand_alone_and_count_once(write):
    found = read(write("a.txt", "one\ntwo\n\none\n"))
    assert (found.texts, found.rows) == (["one", "two"], [])


def test_the_texts_of_a_row_belong_together(write):
    found = read(write("a.csv", "anchor,positive,negative,note\na,b,c,x\nd,b,a,x\n"))
    assert found.texts == ["a", "b", "c", "d"]
    assert found.rows == [[0, 1, 2], [3, 1, 0]]


@pytest.mark.parametrize("header", ["text,label", "sentence1,sentence2,score"])
def test_texts_with_a_label_or_a_score_stand_alone(write, header):
    row = ",".join("ab"[: header.count(",")]) + ",1"
    found = read(write("a.csv", f"{header}\n{row}\n{row.replace('a', 'c')}\n"))
    assert found.rows == []
    assert len(found.texts) >= 2


def test_columns_are_used_where_the_file_has_them(write):
    table = write("a.csv", "p,q,r,s\n1,2,3,4\n")
    assert read(table, ("q", "s")).texts == ["2", "4"]
    assert read(write("a.jsonl", '{"text": "a"}\n{"text": "b"}\n'), ("q", "s")).texts == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "one\none\n", "1 text. Expected at least 2"),
        ("a.txt", "".join(f"{i}\n" for i in range(501)), "more than 500 different texts"),
        ("a.csv", "a,b\n1,2\n3,\n", r"a\.csv:3: 'b' is empty"),
        ("a.csv", "a,b,c,d\n1,2,3,4\n", "which of its columns"),
        ("a.pdf", "x\n", "the suffix '.pdf' is unknown"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_the_reason(write, name, content, message):
    with pytest.raises(UserError, match=message):
        read(write(name, content))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="`watch` takes a file"):
        read(tmp_path / "a.txt")
