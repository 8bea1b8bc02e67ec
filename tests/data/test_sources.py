import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from simcse_tf.data import sources, tables
from simcse_tf.data.rows import Format, lines
from simcse_tf.data.sources import open_source, scan
from simcse_tf.errors import UserError

TRIPLETS = [("A man plays.", "Someone plays.", "Nobody plays."), ("Zoë's café", "日本語", "emoji 🙂")]
TABLE = "sent0,sent1,hard_neg\n" + "".join(",".join(row) + "\n" for row in TRIPLETS)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file into the current directory and returns its name."""
    monkeypatch.chdir(tmp_path)

    def to(name, content):
        data = content if isinstance(content, bytes) else content.encode()
        Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return name

    return to


def rows(spec, **options):
    return list(open_source(spec, **options).rows())


def complaint(spec, **options):
    with pytest.raises(UserError) as caught:
        rows(spec, **options)
    return str(caught.value)


# --- Formats ---


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_plain_text_is_one_sentence_a_line_and_blank_lines_do_not_count(write, ending):
    spec = write("a.txt" + ending, "One  two. \r\n\n \t\nThree\x00\u2028four.\nNo newline at the end")
    source = open_source(spec)
    assert (source.name, source.views) == (spec, 1)
    assert rows(spec) == [("One  two.",), ("Three\x00\u2028four.",), ("No newline at the end",)]


def test_tables_that_are_written_are_read_again(write):
    rows = [("a\rb", "c, d"), ('e "f"', "g\th")]
    for name in ("in.csv", "in.tsv"):
        content = tables.written([("anchor", "positive"), *rows], Path(name))
        assert list(open_source(write(name, content)).rows()) == rows


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("a.CSV", TABLE.replace("\n", "\r\n")),
        ("a.tsv", TABLE.replace(",", "\t")),
    ],
)
def test_tables_give_their_columns(write, name, content, ending):
    spec = write(name + ending, content)
    assert open_source(spec).views == 3
    assert rows(spec) == TRIPLETS


def test_json_lines_give_the_values_of_the_known_keys(write):
    names = ("hard_neg", "sent1", "sent0", "note")
    lines = [json.dumps(dict(zip(names, (*row[::-1], None), strict=True))) for row in TRIPLETS]
    spec = write("a.jsonl", "\n\n".join(lines))
    assert open_source(spec).views == 3
    assert rows(spec) == TRIPLETS


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.txt", "Text.\n"), ("a.csv", "text\nText.\n"), ("a.jsonl", '{"text": "Text."}\n'), ("a.txt.gz", "Text.\n")],
)
def test_a_byte_order_mark_is_no_text(write, name, content):
    assert rows(write(name, b"\xef\xbb\xbf" + content.encode())) == [("Text.",)]


def test_rows_can_be_read_again_in_the_same_order(write):
    source = open_source(write("a.csv", TABLE))
    assert list(source.rows()) == list(source.rows()) == TRIPLETS


def test_quoted_cells_may_hold_commas_newlines_and_quotation_marks(write):
    spec = write("a.csv", 'a,b\n"one, two\nthree ""four""", five \n\n')
    assert rows(spec) == [('one, two\nthree "four"', "five")]


def test_bundled_text_is_there():
    assert scan(open_source("bundled")).rows >= 1500
    triplets = open_source("bundled:triplets")
    assert triplets.views == 3
    assert scan(triplets).rows >= 300


def test_real_files_are_read_whole(shared_data):
    assert scan(open_source(str(shared_data / "wiki_sentences.txt"))).rows == 11_914
    triplets = scan(open_source(str(shared_data / "nli_triplets.csv")))
    assert (triplets.rows, triplets.bad, triplets.complete) == (2_954, 0, True)


def test_a_format_is_one_line_in_the_table(write, monkeypatch):
    def words(path, columns, reject):
        for raw in lines(path):
            yield from ((word,) for word in raw.decode().split())
        return "nothing"

    monkeypatch.setitem(sources.FORMATS, ".words", Format(words))
    assert rows(write("a.words", "one two\nthree\n")) == [("one",), ("two",), ("three",)]
    assert ".words" in complaint("no such file")


# --- Columns ---


@pytest.mark.parametrize(
    ("header", "columns", "picked"),
    [
        ("text", (), "0"),
        ("x,y", (), "01"),
        ("x,y,z", (), "012"),
        ("x,y,z", ("z", "x"), "20"),
        ("text,label", ("text",), "0"),
        ("label", (), "0"),
        ("text,score", (), "0"),
        ("id,sent0,sent1,note", (), "12"),
        ("hard_neg,sent1,sent0", (), "210"),
        ("n,anchor,positive,negative", (), "123"),
        ("anchor,positive,negative_1,negative_2,negative_3", (), "01234"),
        ("negative_10,negative_2,anchor,positive,negative,score", (), "23410"),
        ("sent0,sent1,hard_neg_1,hard_neg_2,id", (), "0123"),
        ("document,query,n1,n2", (), "10"),
        ("query,positive,negative", (), "012"),
        ("a,b,c,d,e", ("e", "d", "c", "b", "a"), "43210"),
    ],
)
def test_columns_are_the_named_ones_else_the_known_ones_else_all_of_a_few(write, header, columns, picked):
    names = header.split(",")
    spec = write("a.csv", f"{header}\n{','.join(f'cell {i}' for i in range(len(names)))}\n")
    assert rows(spec, columns=columns) == [tuple(f"cell {i}" for i in picked)]
    assert open_source(spec, columns=columns).views == len(picked)


@pytest.mark.parametrize(
    "header",
    ["a,b,c,d", ",text2", "sent0,hard_neg", "sent0,negative,hard_neg_1,y", "x,score", "x,y,class", "a,b,c,label"],
)
def test_a_header_that_does_not_tell_asks_for_columns(write, header):
    message = complaint(write("a.csv", f"{header}\n"))
    assert "a.csv: which of its columns" in message
    assert "`columns`" in message


def test_json_keys_that_are_not_known_ask_for_columns(write):
    spec = write("a.jsonl", '{"q": "One.", "r": "Two."}\n')
    message = complaint(spec)
    assert message.startswith("a.jsonl: which of its columns (q, r) are the text?")
    assert "`columns`" in message
    assert rows(spec, columns=("r",)) == [("Two.",)]


@pytest.mark.parametrize(("name", "content"), [("a.csv", TABLE), ("a.jsonl", '{"sent0": "a", "sent1": "b"}\n')])
def test_an_unknown_column_gets_the_nearest_name(write, name, content):
    assert complaint(write(name, content), columns=("sent0", "sent_1")).startswith(
        f"{name}: no column 'sent_1'. Did you mean 'sent1'"
    )


def test_two_columns_of_one_name_are_an_error(write):
    assert complaint(write("a.csv", "t,t\na,b\n")) == "a.csv: two columns are named 't'. Rename one of them."


@pytest.mark.parametrize("spec", ["a.txt", "bundled", "wiki1m", "tfds:snli:train:premise"])
def test_columns_for_a_source_that_has_none_are_an_error(write, spec):
    write("a.txt", "Text.\n")
    assert complaint(spec, columns=("text",)).startswith(f"`columns` text: {spec} has no named columns")


@pytest.mark.parametrize(
    ("header", "columns", "problem"),
    [
        ("text,label,class", (), "which of the columns label, class belongs to the text"),
        ("sentence1,sentence2,score,label", (), "which of the columns score, label belongs to the text"),
        ("a,b", ("a", "score:b"), "the column 'b' beside 1 of text"),
        ("a,b,class", ("a", "b", "class"), "the column 'class' beside 2 of text"),
        ("a,b,c,label", ("a", "b", "c", "label"), "the column 'label' beside 3 of text"),
        ("a,intent", ("a", "label:intend"), "no column 'intend'. Did you mean 'intent'"),
        ("a,b", ("a", "a"), "the column 'a' is chosen twice"),
    ],
)
def test_columns_that_do_not_belong_together_are_refused(write, header, columns, problem):
    assert problem in complaint(write("a.csv", f"{header}\n"), columns=columns)


# --- Bad rows ---


def test_a_wrong_number_of_columns_names_file_line_and_the_rows_start(write):
    spec = write("a.csv", 'sent0,sent1,hard_neg\n"two\nlines",b,c\n\nA man is playing a guitar on the stage today.,b\n')
    message = complaint(spec)
    assert message.startswith(
        "a.csv:5: expected 3 columns (sent0, sent1, hard_neg), found 2; the row starts "
        '"A man is playing a guitar on the stage t...".'
    )
    assert "`skip_bad_rows`" in message


GOOD = {"txt": b"good\n", "csv": b"x,y\n", "tsv": b"x\ty\n", "jsonl": b'{"text": "good"}\n'}
HEAD = {"txt": b"\n", "csv": b"a,b\n", "tsv": b"a\tb\n", "jsonl": b"\n"}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("kind", "row", "problem"),
    [
        ("txt", b"caf\xe9", "byte 0xe9 at position 4 is not UTF-8"),
        ("txt", b"y" * 3_000_000, "longer than 1,048,575 bytes"),
        ("csv", b"x", "expected 2 columns (a, b), found 1"),
        ("csv", b"x,y,z", "expected 2 columns (a, b), found 3"),
        ("csv", b"x, ", "'b' is empty"),
        ("csv", b"x,caf\xe9", "byte 0xe9 at position 6 is not UTF-8"),
        ("csv", b'x,"1\n\xff\n3"', "byte 0xff at position 1 is not UTF-8"),
        ("csv", b"x," + b"y" * 200_000, "field larger than field limit"),
        ("csv", b"x," * 600_000, "longer than 1,048,575 bytes"),
        ("tsv", b'"said" he\ty', "not valid TSV"),
        ("jsonl", b'{"text": "y"', "broken JSON"),
        ("jsonl", b'["y"]', "not a JSON object"),
        ("jsonl", b'{"txet": "y"}', "no 'text'"),
        ("jsonl", b'{"text": 17}', "'text' is 17, expected a string"),
        ("jsonl", b'{"text": null}', "'text' is null, expected a string"),
        ("jsonl", b'{"text": " "}', "'text' is empty"),
        ("jsonl", b'{"text": "\xff"}', "byte 0xff at position 11 is not UTF-8"),
        ("jsonl", b'{"text": "a \\ud83d"}', "'text' has \\ud83d, half of a surrogate pair"),
        ("jsonl", b"[" * 100_000, "JSON that cannot be read"),
        ("jsonl", b"1" * 10_000, "JSON that cannot be read"),
    ],
)
def test_a_bad_row_names_file_and_line_and_can_be_skipped(write, kind, row, problem, ending):
    spec = write(f"a.{kind}{ending}", HEAD[kind] + GOOD[kind] + b"\n" + row + b"\n" + GOOD[kind])
    message = complaint(spec)
    assert message.startswith(f"{spec}:4: ")
    assert problem in message
    assert "`skip_bad_rows`" in message
    assert len(message) < 400

    bad = []
    good = list(open_source(spec).rows(bad.append))
    assert good == [good[0], good[0]]
    assert len(bad) == 1
    assert message.startswith(bad[0])
    assert scan(open_source(spec), skip_bad_rows=True) == sources.Scan(2, 1, True, bad[0])


def test_a_quotation_mark_that_is_never_closed_is_found_where_it_opens(write):
    spec = write("a.csv", 'a,b\nx,y\nx,"open\nx,y\nx,y\n')
    assert complaint(spec).startswith("a.csv:3: not valid CSV (unexpected end of data; ")


def test_a_utf_16_file_is_no_utf_8(write):
    assert complaint(write("a.txt", "Text.\n".encode("utf-16"))).startswith("a.txt:1: byte 0xff")
    assert complaint(write("a.csv", "a,b\n".encode("utf-16"))).startswith("a.csv:1: expected a header")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "question;answer\nWho?;Me.\n", "separated by commas, found one column, 'question;answer'"),
        ("a.csv", "question\tanswer\nWho?\tMe.\n", "separated by commas"),
        ("a.tsv", "question,answer\nWho?,Me.\n", "separated by tabs, found one column, 'question,answer'"),
    ],
)
def test_a_table_with_another_separator_is_not_read_as_single_texts(write, name, content, expected):
    message = complaint(write(name, content))
    assert message.startswith(f"{name}:1: expected columns")
    assert expected in message


def test_the_shown_start_of_a_row_cannot_control_the_terminal(write):
    assert r'starts "\x1b[31mred\x00 \xff".' in complaint(write("a.txt", b"\x1b[31mred\x00 \xff\n"))


# --- Files that cannot be used ---


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "", "empty (0 lines). Expected rows of text."),
        ("a.csv", "", "empty (0 lines). Expected rows of text."),
        ("a.txt", "\n \n\n", "no usable row: 3 lines, 0 bad, all others blank."),
        ("a.csv", "\n\n", "only blank lines. Expected a header with the column names."),
        ("a.csv", "a,b\n\n", "no usable row: 0 rows below the header, 0 bad."),
        ("a.jsonl", "\n\n", "no JSON object in its first 100 lines (only blank lines). Expected one on each line."),
        ("a.jsonl", "[1]\n\n", "no JSON object in its first 100 lines (not a JSON object). Expected one on each line."),
    ],
)
def test_a_file_without_text_names_file_and_count(write, name, content, expected, ending):
    spec = write(name + ending, content)
    assert complaint(spec) == f"{spec}: {expected}"


def test_a_file_of_bad_rows_only_is_an_error_even_when_they_are_skipped(write):
    spec = write("a.csv", "a,b\nx\ny\n")
    with pytest.raises(UserError, match=r"a\.csv: no usable row: 2 rows below the header, 2 bad\."):
        scan(open_source(spec), skip_bad_rows=True)


@pytest.mark.parametrize("name", ["a.txt.gz", "a.csv.gz", "a.jsonl.gz"])
@pytest.mark.parametrize("damage", ["not gzip", "cut off", "wrong checksum"])
def test_a_broken_gzip_file_names_the_file(tmp_path, monkeypatch, name, damage):
    monkeypatch.chdir(tmp_path)
    whole = {"txt": "Text {}.\n", "csv": "{},b\n", "jsonl": '{{"text": "{}"}}\n'}[name.split(".")[1]]
    data = gzip.compress("".join(whole.format(i) for i in range(100_000)).encode())
    broken = {"not gzip": b"Text.\n", "cut off": data[: len(data) // 2], "wrong checksum": data[:-8] + bytes(8)}[damage]
    Path(name).write_bytes(broken)
    with pytest.raises(UserError, match=f"{name}: broken or incomplete gzip file"):
        scan(open_source(name), skip_bad_rows=damage == "cut off")


def test_what_is_no_text_file_is_refused(write):
    write("data.parquet", "x")
    write("data.json", "{}")
    write("bare", "x")
    os.mkdir("folder.txt")
    os.mkfifo("pipe.txt")
    assert complaint("data.parquet") == (
        "data.parquet: the suffix '.parquet' is unknown. Valid: .csv, .jsonl, .tsv, .txt."
    )
    assert complaint("data.json") == "data.json: the suffix '.json' is unknown. Did you mean '.jsonl'?"
    assert complaint("bare").startswith("bare: the suffix '' is unknown.")
    assert complaint("folder.txt").startswith("folder.txt: no .txt or .md file in this folder")
    assert complaint("pipe.txt").startswith("pipe.txt: not a regular file.")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read even by root")
def test_a_file_that_cannot_be_read_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("/proc/self/mem", "a.txt")
    assert complaint("a.txt") == "a.txt: cannot be read (Input/output error)."


# --- Names ---


@pytest.mark.parametrize("spec", ["missing.txt", "folder/missing", "missing.csv.gz"])
def test_a_missing_path_says_so(write, spec):
    assert complaint(spec).startswith(f"{spec}: No such file or directory.")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("wiki1", "Did you mean 'wiki1m'"),
        ("bundled:triples", "Did you mean 'bundled:triplets'"),
        ("", "Valid: bundled, bundled:triplets, nli_for_simcse, tfds:snli+multi_nli, wiki1m."),
    ],
)
def test_an_unknown_name_gets_the_nearest_ones(write, spec, hint):
    message = complaint(spec)
    assert message.startswith(f"`data` {spec}: neither a file nor a known name. {hint}")


def test_a_file_wins_over_a_name(write):
    write("tfds:a:b:c.txt", "From the file.\n")
    assert rows("tfds:a:b:c.txt") == [("From the file.",)]
    write("bundled", "x")
    assert complaint("bundled").startswith("bundled: the suffix '' is unknown.")


@pytest.mark.parametrize("spec", ["tfds:", "tfds:snli", "tfds:glue/stsb", "tfds:a:b", "tfds:a:b:", "tfds:a:b:1,,3"])
def test_a_tfds_name_that_is_not_complete_shows_the_form(write, spec):
    assert complaint(spec).startswith(f"`data` {spec}: expected tfds:NAME:SPLIT:FIELD[,FIELD...]")


@pytest.mark.parametrize(
    ("spec", "views"),
    [
        ("tfds:imdb_reviews:train:text", 1),
        ("tfds:glue/sst2:2.0.0:train[:10%]:sentence", 1),
        ("tfds:glue/mrpc:train[:5]+test[5:]:sentence1,sentence2", 2),
        ("tfds:a:b:1,2,3,4", 4),
        ("tfds:snli+multi_nli", 3),
        ("wiki1m", 1),
        ("nli_for_simcse", 3),
    ],
)
def test_the_number_of_views_is_known_without_reading(spec, views):
    source = open_source(spec)
    assert (source.name, source.views) == (spec, views)
    assert source.needs_tensorflow == spec.startswith("tfds:")


def test_columns_of_a_published_table_can_be_chosen():
    assert open_source("nli_for_simcse", columns=("sent0", "sent1")).views == 2
    assert "Did you mean 'hard_neg'" in complaint("nli_for_simcse", columns=("sent0", "hard_negative"))


@pytest.mark.parametrize("module", ["tensorflow_datasets", "importlib_resources"])
def test_a_missing_extra_is_named_before_anything_is_read(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert "simcse-tf[tfds]" in complaint("tfds:imdb_reviews:train:text")


# --- Scanning ---


def test_a_scan_stops_where_it_is_told_to(write):
    spec = write("a.txt", b"one\ntwo\nthree\n\xff\n")
    assert scan(open_source(spec), at_most=2) == sources.Scan(rows=2, bad=0, complete=False, first_bad=None)
    assert scan(open_source(spec), at_most=3).rows == 3
    with pytest.raises(UserError, match=r"a\.txt:4: "):
        scan(open_source(spec), at_most=4)


def test_a_scan_that_reaches_the_end_is_complete(write):
    spec = write("a.txt", "one\ntwo\n")
    assert scan(open_source(spec), at_most=3) == scan(open_source(spec)) == sources.Scan(2, 0, True, None)


@pytest.mark.parametrize(
    ("name", "line"),
    [("a.txt", "Text {}.\n"), ("a.txt.gz", "Text {}.\n"), ("a.csv", "Text {},b\n"), ("a.jsonl", '{{"text": "{}"}}\n')],
)
def test_memory_does_not_grow_with_the_file(write, name, line):
    peaks = []
    for count in (5_000, 100_000):
        spec = write(name, "".join(line.format(i) for i in range(count)))
        tracemalloc.start()
        scan(open_source(spec))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000


def test_a_line_without_end_is_not_read_into_memory(write):
    spec = write("a.txt", b"x" * 30_000_000)
    tracemalloc.start()
    scan_error = complaint(spec)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "longer than" in scan_error
    assert peak < 5_000_000


def test_opening_and_scanning_a_file_import_nothing_heavy(write):
    write("a.csv", TABLE)
    code = (
        "import sys; from simcse_tf.data.sources import open_source, scan; "
        "scan(open_source('a.csv')); scan(open_source('bundled')); open_source('tfds:snli+multi_nli'); "
        "print([m for m in ('tensorflow', 'keras', 'numpy', 'scipy') if m in sys.modules])"
    )
    root = Path(sources.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr
