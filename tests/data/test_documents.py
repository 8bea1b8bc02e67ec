"""Documents as training data: how they are cut into sentences, what is drawn of them, and what is held out."""

import gzip
import json
import os
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from simcse_tf import train
from simcse_tf.data.documents import Crops, markdown, sentences
from simcse_tf.data.held_out import hold_out
from simcse_tf.data.sources import open_source, scan
from simcse_tf.errors import UserError
from simcse_tf.runs import read_held_out
from simcse_tf.training.plan import plan
from tests.conftest import SENTENCES


def document(name, count, *, sep=" "):
    """So many different sentences: "Doc 3, sentence 0 here."."""
    return sep.join(f"Doc {name}, sentence {i} here." for i in range(count))


FOUR = document(1, 4)


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes files into the current directory."""
    monkeypatch.chdir(tmp_path)

    def to(files):
        for name, content in files.items():
            data = content if isinstance(content, bytes) else content.encode()
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") and data[:1] != b"!" else data)

    return to


@pytest.fixture
def folder(tmp_path):
    """400 documents of 4 to 12 sentences, each in a file."""
    path = tmp_path / "docs"
    path.mkdir()
    for i in range(400):
        (path / f"{i:03}.txt").write_text(document(i, 4 + i % 9), "utf-8")
    return path


def rows(spec, seed=0, epoch=0, **options):
    return list(open_source(spec, **options).rows(seed=seed, epoch=epoch))


def complaint(spec, **options):
    with pytest.raises(UserError) as caught:
        rows(spec, **options)
    return str(caught.value)


def documents_of(rows):
    return {text.split(",")[0] for row in rows for text in row}


# --- Sentences ---


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One two. Three! Four?  Five", ["One two.", "Three!", "Four?", "Five"]),
        ("Wrapped at\nsome column. The\nnext one.", ["Wrapped at some column.", "The next one."]),
        ('He said "Stop!" Then left. (Yes.) Well…  No', ['He said "Stop!"', "Then left.", "(Yes.)", "Well…", "No"]),
        ("E.g. so, No. 5 and J. Fox of the U.S. Army. End.", ["E.g. so, No. 5 and J. Fox of the U.S. Army.", "End."]),
        ("Version 3.14 is at example.com/a.b now. So it is.", ["Version 3.14 is at example.com/a.b now.", "So it is."]),
        ('"Really?" he asked. "Да! конечно. Нет."', ['"Really?" he asked.', '"Да! конечно.', 'Нет."']),
        ("今日は晴れです。「行こう！」明日は？", ["今日は晴れです。", "「行こう！」", "明日は？"]),  # noqa: RUF001 - Japanese
        ("यह एक वाक्य है। यह दूसरा है। ما هذا؟ نعم", ["यह एक वाक्य है।", "यह दूसरा है।", "ما هذا؟", "نعم"]),
        ("A title\n\nText below it", ["A title", "Text below it"]),
        ("A title\n=======\nText below\r\n \r\nit", ["A title", "Text below", "it"]),
        ("List:\n- one\n  still one\n* two\n\n1. three\n2) four", ["List:", "one still one", "two", "three", "four"]),
        ("| a | b |\n|---|---|\n| c | d |", ["| a | b |", "| c | d |"]),
        ("... !!! --- \n\n ***", []),
        ("", []),
    ],
)  # fmt: skip
def test_sentences_end_at_stops_and_by_the_layout(text, found):
    assert sentences(text) == found


def test_a_text_in_which_no_sentence_ends_is_cut_into_pieces_of_words():
    words = [f"w{i}" for i in range(50)]
    pieces = sentences(" ".join(words))
    assert [len(piece.split()) for piece in pieces] == [16, 17, 17]
    assert " ".join(pieces).split() == words
    assert len(sentences(" ".join(words[:31]))) == 1


def test_markdown_is_without_fenced_code_and_front_matter_and_a_heading_is_a_sentence():
    text = (
        "---\ntitle: No text. At all.\n---\n# A heading\nText with `code. Here`.\nMore.\n\n```python\nx = 1. + 2\n```\n"
        "- item\n\n   ~~~~\n   no. Text.\n   ~~~\n   ~~~~\n\n## Another #1\r\n"
        "```inline``` stays. End.\n```\nnever closed. No."
    )
    assert sentences(markdown(text)) == [
        *("A heading", "Text with `code.", "Here`.", "More.", "item", "Another #1", "```inline``` stays.", "End."),
    ]
    # Plain text has no such marks.
    assert "```python x = 1. + 2" in sentences(text)


# --- Crops ---


@pytest.mark.parametrize(("length", "overlap"), [(1, 0), (2, 0), (2, 1), (3, 1), (3, 2)])
def test_all_pairs_of_crops_that_may_overlap_so_much_are_as_likely(length, overlap):
    crops = Crops(length, overlap)
    shortest = 2 * length - overlap
    for count in (shortest, shortest + 3):
        part = "\n".join(f"s{i}" for i in range(count))
        pairs = Counter(crops.draw([(part, "1")] * 4000, seed=1, epoch=0))
        starts = range(count - length + 1)
        expected = {
            (" ".join(f"s{one + i}" for i in range(length)), " ".join(f"s{other + i}" for i in range(length)))
            for one in starts
            for other in starts
            if abs(one - other) >= length - overlap
        }
        assert set(pairs) == expected
        mean = 4000 / len(expected)
        assert all(abs(seen - mean) < 5 * mean**0.5 for seen in pairs.values())


def test_seed_and_epoch_alone_decide_the_crops(write):
    write({"a.txt": "\n".join(document(i, 12) for i in range(30))})
    drawn = {(seed, epoch): rows("documents:a.txt", seed, epoch) for seed in (1, 2) for epoch in (0, 1)}
    assert len(set(map(tuple, drawn.values()))) == 4
    assert rows("documents:a.txt", 1, 1) == drawn[1, 1]
    assert all(len(documents_of([pair])) == 1 for pair in drawn[1, 0])


def test_a_long_document_is_cut_into_parts_that_are_rows_of_their_own(write):
    write({"a.txt": "\n".join(document(i, n) for i, n in enumerate([3, 32, 33, 100]))})
    stored = list(open_source("documents:a.txt").stored())
    assert [(len(part.split("\n")), number) for part, number in stored] == [
        *((3, "1"), (32, "2"), (16, "3"), (17, "3"), (25, "4"), (25, "4"), (25, "4"), (25, "4")),
    ]
    assert "\n".join(part for part, _ in stored[4:]) == document(3, 100, sep="\n")
    # Longer crops take longer parts.
    assert len(rows("documents:a.txt", crop_sentences=1, crop_overlap=0)) == 1 + 2 + 3 + 7
    assert len(list(open_source("documents:a.txt", crop_sentences=3).rows(lambda message: None))) == 0 + 1 + 1 + 3


# --- Where documents are ---


def test_a_folder_gives_its_text_files_in_order_of_names(write):
    write(
        {
            "docs/b/1.md": "# Of b1\n\nOne. Two.\n```\nCode. Code. Code.\n```\n",
            "docs/a.txt": b"\xef\xbb\xbf" + document("a", 3).encode(),
            "docs/c.TXT.gz": document("c", 3),
            "docs/b.txt": document("b", 3),
            "docs/.hidden.txt": "x",
            "docs/.git/x.txt": "x",
            "docs/b/2.pdf": "x",
            "docs/LICENSE": "x",
            "docs/3.pdf": "x",
        }
    )
    os.symlink("docs", "docs/self")
    source = open_source("docs")
    assert (source.name, source.views, source.columns) == ("docs", 2, ())
    assert source.note == "4 .txt and .md files; others are left out: 2 .pdf, 1 without a suffix"
    assert [part.split("\n")[0] for part, _ in source.stored()] == [
        *("Doc a, sentence 0 here.", "Of b1", "Doc b, sentence 0 here.", "Doc c, sentence 0 here."),
    ]
    assert list(open_source("documents:docs").rows()) == list(source.rows())


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.txt", f"{FOUR}\n\n{document(2, 4)}\n", ()),
        ("a.txt.gz", f"{FOUR}\n\n{document(2, 4)}\n", ()),
        ("a.csv", f'id,text\n1,"{FOUR}"\n2,"{document(2, 4)}"\n', ()),
        ("a.tsv", f"id\tbody\n1\t{FOUR}\n2\t{document(2, 4)}\n", ("body",)),
        ("a.jsonl", "".join(json.dumps({"text": document(i, 4, sep="\n\n")}) + "\n" for i in (1, 2)), ()),
    ],
)
def test_a_file_with_a_document_on_each_line_or_row(write, name, content, columns):
    write({name: content})
    source = open_source(f"documents:{name}", columns=columns)
    assert (source.name, source.views) == (f"documents:{name}", 2)
    assert list(source.stored()) == [(document(i, 4, sep="\n"), str(i)) for i in (1, 2)]
    assert [len(row) for row in source.rows()] == [2, 2]


def test_a_file_of_text_without_the_prefix_stays_one_of_sentences(write):
    write({"a.txt": document(1, 4)})
    assert rows("a.txt") == [(document(1, 4),)]


@pytest.mark.parametrize(
    ("columns", "expected"), [((), "which of its columns (title, body)"), (("title", "body"), "Name 1.")]
)
def test_a_document_is_one_column(write, columns, expected):
    write({"a.csv": "title,body\nx,y\n"})
    assert expected in complaint("documents:a.csv", columns=columns)


# --- Bad input ---


@pytest.mark.parametrize(
    ("files", "place", "problem"),
    [
        ({"d.txt": f"{FOUR}\n\nOne. Two.\n"}, "d.txt:3", "a document of 2 sentences, too short for"),
        ({"d.csv": f'text\n"{FOUR}"\n\nOne\n'}, "d.csv:4", "a document of 1 sentence, too short"),
        ({"d.jsonl": f'{{"text": "{FOUR}"}}\n{{"text": 3}}\n'}, "d.jsonl:2", "'text' is 3, expected a string"),
        ({"d.txt": FOUR.encode() + b"\ncaf\xe9"}, "d.txt:2", "byte 0xe9 at position 4 is not UTF-8"),
        ({"d/1.txt": FOUR, "d/2.txt": "One. Two."}, "d/2.txt:1", "a document of 2 sentences"),
        ({"d/1.txt": FOUR, "d/2.md": "```\nOne.\n\nTwo.\n\nThree.\n```"}, "d/2.md:1", "a document of 0 sentences"),
        ({"d/1.txt": FOUR, "d/2.txt": ""}, "d/2.txt:1", "a document of 0 sentences"),
        ({"d/1.txt": FOUR, "d/2.txt": b"\xef\xbb\xbf1\nTwo: caf\xe9."}, "d/2.txt:2", "byte 0xe9 at position 9"),
        ({"d/1.txt": FOUR, "d/2.txt.gz": "x. " * 6_000_000}, "d/2.txt.gz:1", "longer than 16,777,216 bytes"),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_used_names_file_and_line_and_can_be_skipped(write, files, place, problem):
    write(files)
    spec = "d" if Path("d").is_dir() else f"documents:{next(iter(files))}"
    message = complaint(spec)
    assert message.startswith(f"{place}: {problem}")
    assert "`skip_bad_rows`" in message
    if "too short" in message:
        assert "`crop_sentences` 2 with `crop_overlap` 1 takes 3" in message
    found = scan(open_source(spec), skip_bad_rows=True)
    assert (found.rows, found.bad) == (1, 1)
    assert message.startswith(found.first_bad)


@pytest.mark.parametrize(
    ("files", "spec", "expected"),
    [
        ({"d/.x.txt": "x"}, "d", r"d: no \.txt or \.md file in this folder or below it"),
        ({"d/e/x.pdf": "x", "d/x.html": "x"}, "d", r"d: no \.txt or \.md file .*, but others: 1 \.pdf, 1 \.html"),
        ({"d/x.txt": "x"}, "d", r"d: no usable row: 1 files, 1 bad\."),
        ({"x.txt": ""}, "documents:x.txt", r"x\.txt: empty \(0 lines\)"),
        ({"x.pdf": "x"}, "documents:x.pdf", r"x\.pdf: the suffix '\.pdf' is unknown"),
        ({}, "documents:x.txt", r"x\.txt: No such file or directory\. `data` documents:FILE takes a file"),
        ({}, "documents:", "not a regular file"),
        ({"d/x.txt.gz": b"!not gzip"}, "d", r"d/x\.txt\.gz: broken or incomplete gzip file"),
        ({"x.txt.gz": b"!not gzip"}, "documents:x.txt.gz", r"x\.txt\.gz: broken or incomplete gzip file"),
    ],
)
def test_what_has_no_documents_is_refused(write, files, spec, expected):
    write(files)
    with pytest.raises(UserError, match=expected):
        scan(open_source(spec), skip_bad_rows=True)


@pytest.mark.parametrize("files", [{"a.txt": document(1, 4)}, {"d/a.txt": document(1, 4)}])
def test_columns_of_documents_that_have_none_are_an_error(write, files):
    write(files)
    spec = "d" if Path("d").is_dir() else "documents:a.txt"
    assert complaint(spec, columns=("text",)).startswith(f"`columns` text: {spec} has no named columns")


@pytest.mark.parametrize(("length", "overlap"), [(0, 0), (1, 1), (2, 2), (2, -1)])
def test_crops_that_cannot_be_are_an_error(write, length, overlap):
    write({"a.txt": document(1, 4)})
    with pytest.raises(UserError, match="`crop_sentences` 0|`crop_overlap` .* must be at least 0 and at most"):
        open_source("documents:a.txt", crop_sentences=length, crop_overlap=overlap)
    with pytest.raises(UserError, match="`crop_sentences` 0|`crop_overlap` .* must be at least 0 and at most"):
        train.parse(["--crop-sentences", str(length), "--crop-overlap", str(overlap)]).validate()


def test_crops_of_what_is_no_documents_are_an_error(sentences_file, tiny_preset, tmp_path):
    flags = ["--preset", str(tiny_preset), "--data", str(sentences_file), "--output-dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=r"`crop_sentences` 3: crops are taken of documents, which `data` .* is not"):
        plan(train.parse([*flags, "--crop-sentences", "3"]))


def test_memory_does_not_grow_with_the_documents(write):
    peaks = []
    for count in (300, 6000):
        write({"a.txt": "".join(document(i, 5) + "\n" for i in range(count))})
        tracemalloc.start()
        assert sum(1 for _ in open_source("documents:a.txt").rows()) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000  # the longer file is one of 800,000 bytes


# --- A run ---


def test_a_scan_is_of_the_documents_and_sees_their_text(folder):
    before = scan(open_source(str(folder)))
    assert (before.rows, before.complete) == (400, True)
    assert scan(open_source(str(folder), crop_overlap=0)).fingerprint == before.fingerprint
    (folder / "007.txt").write_text(document("other", 8), "utf-8")
    assert scan(open_source(str(folder))).fingerprint != before.fingerprint


def test_documents_are_held_out_whole_and_as_the_same_crops(write):
    # Every third has two parts; some occur twice.
    write({"a.txt": "".join(document(i % 290, 40 if i % 290 % 3 == 0 else 10) + "\n" for i in range(300))})
    source = open_source("documents:a.txt")
    held = hold_out(source, skip_bad_rows=False, batch_size=8)
    assert (held.total, held.problem) == (300 + 101, "")
    assert len(held.rows) == 40
    assert hold_out(source, skip_bad_rows=False, batch_size=8).rows == held.rows
    for epoch in range(3):
        training = list(held.training.rows(seed=5, epoch=epoch))
        assert len(training) == held.total - 40 == scan(held.training).rows
        assert documents_of(training).isdisjoint(documents_of(held.rows))


def test_a_few_long_documents_cannot_be_held_out(write):
    write({f"d/{i}.txt": document(i, 1000) for i in range(10)})
    held = hold_out(open_source("d"), skip_bad_rows=False, batch_size=8)
    assert "or of one document" in held.problem
    assert held.rows == []


@pytest.mark.parametrize("form", ["{}", "documents:{}/a.txt"])
def test_documents_are_judged_by_a_part_of_them(folder, tmp_path, tiny_preset, form):
    (folder / "a.txt").write_text("\n".join(document(i, 4) for i in range(300)), "utf-8")
    flags = ["--preset", str(tiny_preset), "--data", form.format(folder), "--output-dir", str(tmp_path / "run")]
    found = plan(train.parse(flags))
    assert [each.name for each in found.development_sets] == ["held-out", "bundled"]
    # Of 43 of the folder's, half are held out for the test.
    assert len(found.development_sets[0].queries) == (30 if form.endswith("a.txt") else 21)


def test_every_epoch_has_each_document_with_other_crops_and_starts_anywhere(folder):
    from simcse_tf.data.pipeline import Feed

    def batches(n, start=0):
        feed = Feed(open_source(str(folder)), batch_size=64, seed=5, shuffle_buffer=50, start_step=start)
        return [[tuple(text.decode() for text in row) for row in batch] for batch in islice(feed, n)]

    whole = batches(12)  # an epoch has 6
    assert len(documents_of(row for batch in whole[:6] for row in batch)) == 384
    assert not {row for batch in whole[:6] for row in batch} >= {row for batch in whole[6:] for row in batch}
    assert batches(3, start=8) == whole[8:11]


def test_a_run_on_a_folder_says_what_it_reads_and_holds_out(tiny_preset, tmp_path, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "other.pdf").write_bytes(b"")
    for i in range(230):
        text = " ".join(f"{s.capitalize()} {i} !" for s in SENTENCES[i % 50 :][:6])
        (docs / f"{i}.txt").write_text(text, "utf-8")
    # 23 are held out, an epoch of the others has 3 steps.
    flags = ["--preset", str(tiny_preset), "--data", str(docs), "--dev", "held-out", "--batch-size", "64"]
    flags += ["--max-length", "16", "--epochs", "2", "--export-to", "None", "--no-report"]
    train.main([*flags, "--output-dir", str(tmp_path / "run")])
    out, shown = capsys.readouterr()
    result = json.loads(out)
    assert (result["development_set"], result["steps"]) == ("held-out", 6)
    shown = " ".join(shown.split())
    assert "230 .txt and .md files; others are left out: 1 .pdf" in shown
    assert "--max-length 16 cuts the end off many crops of --crop-sentences 2" in shown
    assert "23 of 230 rows are held out of training" in shown
    assert len(read_held_out(tmp_path / "run")) == 23
