"""The fast way through a text file must come to what the slow way comes to."""

import gzip

import pytest

from simcse_tf.data import rows, text

BLOCK = text._BLOCK
GOOD = {
    "nothing": b"",
    "no newline at the end": b"one\ntwo",
    "blank lines": b"\n\none\n \t\n\xe3\x80\x80\n\r\ntwo\r\n\n",
    "a byte order mark": b"\xef\xbb\xbf\none\n",
    "only a byte order mark": b"\xef\xbb\xbf",
    "characters across the edge of a block": ("a" + "\u00e9" * (BLOCK // 2) + "\n" + "\U0001f600" * 100 + "\n").encode()
    * 3,
    "a line as long as a block": b"a" * (BLOCK - 2) + b"\n" + b"b" * 9 + b"\n",
    "many blocks": b"".join(b"line %d\n\n" % i for i in range(50_000)),
}
BAD = {
    "not UTF-8": b"one\n" * 20_000 + b"caf\xe9\n",
    "half a character at the end": b"one\n\xc3",
    "a line that is too long": b"one\n" + b"a" * rows.LONGEST + b"\ntwo\n",
    "a line that is too long at the end": b"one\n" + b"a" * rows.LONGEST,
}


def slowly(path):
    bad = []
    return sum(1 for _ in text.rows(path, (), lambda *what: bad.append(what))), len(bad)


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("name", ["x.txt", "x.txt.gz"])
def test_good_rows_are_counted(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert slowly(path) == (text.survey(path)[0], 0)


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_a_bad_row_is_left_to_the_slow_way(tmp_path, content):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    assert slowly(path)[1] == 1
    assert text.survey(path) is None


def test_the_fingerprint_tells_texts_apart(tmp_path):
    path, prints = tmp_path / "x.txt", set()
    for content in (b"ab\ncd\n", b"a\nbcd\n", b"ab\nce\n", b"cd\nab\n"):
        path.write_bytes(content)
        prints.add(text.survey(path)[1])
    assert len(prints) == 4
