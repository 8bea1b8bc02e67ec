"""The index, with made-up vectors or a client that counts letters: no TensorFlow."""

import errno
import gzip
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from simcse_tf.data.records import Layout, Record
from simcse_tf.errors import UserError
from simcse_tf.serving import index, segment
from simcse_tf.serving.client import Client
from simcse_tf.serving.index import Index, Writer

pytest.importorskip("faiss", reason="needs faiss: pip install -e '.[dev]'")
ROOT = Path(__file__).resolve().parents[2]
DIM = 24
FINGERPRINT = np.eye(2, DIM, dtype="float32")
LAYOUT = Layout("text", "id", {"topic": "text", "year": "number"})
EVERY = [(kind, bits) for kind in segment.KINDS for bits in segment.BITS]


def clustered(count, seed=0):
    """`(count, DIM)` unit vectors around 50 centres, as sentences about 50 topics."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(50, DIM))
    vectors = centres[rng.integers(50, size=count)] + 0.5 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def records(count, start=0):
    topics = ("dogs", "cats", None)
    return [Record(f"d{i}", f"text {i}\n\u00fc", (topics[i % 3], i % 40 or None)) for i in range(start, start + count)]


def build(directory, vectors, kind="flat", bits=32, rows=None):
    rows = records(len(vectors)) if rows is None else rows
    with Writer(directory) as writer:
        writer.build(LAYOUT, rows, vectors, fingerprint=FINGERPRINT, model="a model", kind=kind, bits=bits)
    return Index(directory, FINGERPRINT)


def add(directory, vectors, rows):
    with Writer(directory) as writer:
        return writer.add(rows, vectors, fingerprint=FINGERPRINT)


def remove(directory, *ids, where=None):
    with Writer(directory) as writer:
        return writer.remove(ids, where)


def recall(found, exact):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), exact.tolist(), strict=True)])


def best(vectors, queries, k):
    return np.argsort(-(queries @ vectors.T), axis=1)[:, :k]


@pytest.fixture
def small_segments(monkeypatch):
    """Segments of at most 1,000 rows."""
    monkeypatch.setattr(segment, "_MOST_ROWS", 1000)


class TestSearch:
    def test_flat_is_exact_and_knows_what_stands_beside_a_text(self, tmp_path, small_segments):
        vectors, queries = clustered(3000), clustered(20, seed=5)
        opened = build(tmp_path / "i", vectors)
        assert len(opened.about.segments) == 3
        scores, rows = queries @ vectors.T, records(3000)
        for row, answers in zip(scores, opened.search(queries, top_k=4, threshold=-1), strict=True):
            four = np.argsort(-row)[:4]
            assert [answer.text for answer in answers] == [rows[i].text for i in four]
            assert [answer.id for answer in answers] == [rows[i].id for i in four]
            assert [tuple(answer.metadata.values()) for answer in answers] == [rows[i].metadata for i in four]
            np.testing.assert_allclose([answer.cosine for answer in answers], row[four], atol=1e-5)

    def test_an_answer_is_a_pair(self, tmp_path):
        ((answer,),) = build(tmp_path / "i", clustered(3)).search(clustered(1), top_k=1, threshold=-1)
        text, cosine = answer
        assert (text, cosine) == answer == (answer.text, answer.cosine)
        assert list(answer.metadata) == ["topic", "year"]

    @pytest.mark.parametrize(("kind", "bits"), EVERY)
    def test_every_kind_finds_nearly_the_same_with_any_bits_alone_and_together(
        self, tmp_path, small_segments, monkeypatch, kind, bits
    ):
        # 24 signs say little: more is looked at, which is what `bits` 1 is measured with at 384.
        monkeypatch.setattr(segment, "_LEAST_CANDIDATES", 200)
        vectors, queries = clustered(2500), clustered(40, seed=5)
        opened = build(tmp_path / "i", vectors, kind, bits)
        scores, rows = opened.nearest(queries, 10)
        exact = best(vectors, queries, 10)
        assert recall(rows, exact) > (0.7 if kind == "ivf" else 0.9)
        cosines = np.take_along_axis(queries @ vectors.T, rows, axis=1)
        np.testing.assert_allclose(scores, cosines, atol=1e-5 if bits == 32 else 0.02)
        assert (np.diff(scores, axis=1) <= 0).all()
        # One query at a time goes through other threads.
        for query, expected in zip(queries[:5], rows, strict=False):
            np.testing.assert_array_equal(opened.nearest(query[None], 10)[1][0], expected)

    @pytest.mark.parametrize(("kind", "bits"), EVERY)
    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_few_texts(self, tmp_path, kind, bits, count):
        vectors = clustered(count)
        found = build(tmp_path / "i", vectors, kind, bits).search(vectors[:1], top_k=100, threshold=0.95)
        assert found[0][0].id == "d0"

    @pytest.mark.parametrize(("kind", "bits"), EVERY)
    def test_codes_are_mapped_into_memory(self, tmp_path, kind, bits):
        build(tmp_path / "mapped", clustered(500), kind, bits)
        opened = Index(tmp_path / "mapped", FINGERPRINT)
        assert str(tmp_path / "mapped" / "000001-0000" / "codes.faiss") in Path("/proc/self/maps").read_text()
        assert len(opened) == 500

    @pytest.mark.parametrize(("kind", "bits"), EVERY)
    def test_a_filter_confines_the_search_to_where_it_holds(self, tmp_path, small_segments, kind, bits):
        vectors = clustered(2000)
        opened = build(tmp_path / "i", vectors, kind, bits)
        for where, holds in {
            "topic = 'dogs'": lambda topic, year: topic == "dogs",
            "year = 7 AND topic IS NULL": lambda topic, year: year == 7 and topic is None,
            "id IN ('d3', 'd1500')": None,
            "year > 100": lambda topic, year: False,
        }.items():
            rows = records(2000)
            allowed = [
                i
                for i, row in enumerate(rows)
                if (row.id in ("d3", "d1500") if holds is None else holds(*row.metadata))
            ]
            found = opened.search(vectors[:30], top_k=5, threshold=-2, where=where)
            exact = best(vectors[allowed], vectors[:30], min(5, len(allowed)))
            for answers, nearest in zip(found, exact, strict=True):
                assert {answer.id for answer in answers} <= {rows[i].id for i in allowed}
                if len(allowed) < 200:
                    # Where few rows may be found, none is missed.
                    assert len(answers) == len(nearest)
                    assert {answer.id for answer in answers} == {rows[allowed[i]].id for i in nearest} or bits < 32

    def test_rows_may_be_confined_by_number(self, tmp_path, small_segments):
        vectors = clustered(2500)
        opened = build(tmp_path / "i", vectors)
        among = np.arange(2500) % 3 == 1
        _, rows = opened.nearest(vectors[among], 1, among=among)
        assert (rows[:, 0] == np.flatnonzero(among)).all()
        assert (opened.nearest(vectors[:3], 2, among=among & False)[1] == -1).all()

    def test_vectors_that_are_longer_than_the_indexs_are_cut(self, tmp_path):
        vectors = clustered(50)
        opened = build(tmp_path / "i", vectors)
        wide = np.concatenate([vectors, vectors], axis=1) / np.float32(np.sqrt(2))
        probes = np.concatenate([FINGERPRINT, FINGERPRINT], axis=1) / np.float32(np.sqrt(2))
        found = Index(tmp_path / "i", probes).search(wide[:3], top_k=1, threshold=0.9)
        assert [answers[0].id for answers in found] == ["d0", "d1", "d2"]
        assert len(opened) == 50

    def test_empty_texts_are_texts(self, tmp_path):
        rows = [Record(str(i), "", (None, None)) for i in range(2)]
        assert build(tmp_path / "i", clustered(2), rows=rows).texts(np.array([[0, 1]])) == [["", ""]]


class TestFilters:
    @pytest.mark.parametrize(
        "where",
        [
            "",
            "year = ",
            "1); DROP TABLE rows; --",
            "1; SELECT 1",
            "1) UNION SELECT 1 --",
            "year IN (SELECT year FROM rows)",
            "EXISTS (SELECT 1 FROM sqlite_master)",
            "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x FROM c)",
            "load_extension('x')",
            "randomblob(1000000000) IS NULL",
            "readfile('/etc/passwd') IS NULL",
            "ATTACH 'x' AS y",
            "PRAGMA writable_schema = 1",
            "yaer > 3",
            "year > ?",
        ],
    )
    def test_what_is_no_expression_over_the_columns_is_refused(self, tmp_path, where):
        opened = build(tmp_path / "i", clustered(30))
        before = {path: path.read_bytes() for path in (tmp_path / "i").rglob("*") if path.is_file()}
        with pytest.raises(UserError, match="`where`.*Expected an SQL expression over id, text, topic, year"):
            opened.search(clustered(1), top_k=1, threshold=-1, where=where)
        with pytest.raises(UserError, match="`where`"):
            remove(tmp_path / "i", where=where)
        assert {path: path.read_bytes() for path in (tmp_path / "i").rglob("*") if path.is_file()} == before

    def test_columns_of_any_name(self, tmp_path):
        layout = Layout("a text", "select", {'say "x"': "number", "o'clock; DROP": "text"})
        with Writer(tmp_path / "i") as writer:
            rows = [Record(f"{i}", "t", (i, "x")) for i in range(9)]
            writer.build(layout, rows, clustered(9), fingerprint=FINGERPRINT, model="m")
        opened = Index(tmp_path / "i", FINGERPRINT)
        ((answer,),) = opened.search(
            clustered(1), top_k=9, threshold=-1, where='"say ""x""" = 4 AND "o\'clock; DROP" = \'x\' -- that'
        )
        assert (answer.id, answer.metadata) == ("4", {'say "x"': 4, "o'clock; DROP": "x"})


class TestChanges:
    @pytest.mark.parametrize(("kind", "bits"), EVERY)
    def test_what_is_added_is_found_and_what_is_removed_is_not(self, tmp_path, small_segments, kind, bits):
        vectors, more = clustered(1500), clustered(300, seed=3)
        opened = build(tmp_path / "i", vectors, kind, bits)
        about, replaced = add(tmp_path / "i", more, records(300, 1500))
        assert (about.count, replaced, len(opened)) == (1800, 0, 1800)
        found = opened.search(more[:40], top_k=1, threshold=0.9)
        assert np.mean([answers[0].id == f"d{1500 + i}" for i, answers in enumerate(found) if answers]) > 0.9
        gone = [f"d{i}" for i in range(1500, 1800, 2)]
        assert remove(tmp_path / "i", *gone)[1] == 150
        assert remove(tmp_path / "i", where="topic = 'cats'")[1] == 500 + 50
        for answers in opened.search(more[:40], top_k=20, threshold=-1):
            assert not {answer.id for answer in answers} & set(gone)
            assert all(answer.metadata["topic"] != "cats" for answer in answers)
        assert len(opened) == 1100

    def test_a_text_whose_id_is_there_replaces_that(self, tmp_path, small_segments):
        opened = build(tmp_path / "i", clustered(1500))
        new = clustered(3, seed=8)
        rows = [Record("d7", "new 7", ("x", 1)), Record("d1400", "new 1400", ("x", 2)), Record("new", "new", ("x", 3))]
        about, replaced = add(tmp_path / "i", new, rows)
        assert (replaced, about.count) == (2, 1501)
        assert [answers[0].text for answers in opened.search(new, top_k=1, threshold=-1)] == [
            "new 7",
            "new 1400",
            "new",
        ]
        assert sum(part.removed for part in about.segments) == 2
        assert {answer.text for answer in opened.search(new, top_k=1501, threshold=-1)[0]} & {"text 7\n\u00fc"} == set()

    def test_texts_without_ids_are_numbered_on(self, tmp_path):
        layout = Layout()
        with Writer(tmp_path / "i") as writer:
            rows = [Record(None, f"{i}") for i in range(3)]
            writer.build(layout, rows, clustered(3), fingerprint=FINGERPRINT, model="m")
            writer.add([Record(None, "more")], clustered(1, seed=4), fingerprint=FINGERPRINT)
            writer.remove(["3"])
            writer.add([Record(None, "last")], clustered(1, seed=5), fingerprint=FINGERPRINT)
        found = Index(tmp_path / "i", FINGERPRINT).search(clustered(1, seed=5), top_k=9, threshold=-1)
        assert sorted(answer.id for answer in found[0]) == ["0", "1", "2", "4"]

    def test_segments_that_are_small_become_one(self, tmp_path, small_segments):
        opened = build(tmp_path / "i", clustered(1000))
        for i in range(15):
            add(tmp_path / "i", clustered(10, seed=i), records(10, 1000 + 10 * i))
        assert len(opened.about.segments) < 6
        assert len(opened) == 1150
        for i in range(15):
            found = opened.search(clustered(10, seed=i), top_k=1, threshold=0.999)
            assert [answers[0].id for answers in found] == [f"d{1000 + 10 * i + j}" for j in range(10)]

    @pytest.mark.parametrize("bits", segment.BITS)
    def test_rows_that_were_copied_often_are_what_they_were(self, tmp_path, bits):
        vectors = clustered(44)
        opened = build(tmp_path / "i", vectors[:32], bits=bits)
        for i in range(32, 44):
            add(tmp_path / "i", vectors[i : i + 1], records(1, i))
        once = build(tmp_path / "once", vectors, bits=bits)
        found, expected = (np.concatenate(list(each.vectors())) for each in (opened, once))
        np.testing.assert_allclose(found, expected, atol=1e-6 if bits == 32 else 0.02)

    def test_what_is_removed_leaves_the_disk_when_segments_become_one(self, tmp_path, small_segments):
        opened = build(tmp_path / "i", clustered(100))
        remove(tmp_path / "i", *[f"d{i}" for i in range(90)])
        about, _ = add(tmp_path / "i", clustered(20, seed=2), records(20, 100))
        assert (about.segments[0].count, about.segments[0].removed, len(opened)) == (30, 0, 30)
        named = {about.trained.name, about.segments[0].name, ".lock", "index.json"}
        assert {path.name for path in (tmp_path / "i").iterdir()} == named

    def test_an_index_may_become_empty_and_be_filled_again(self, tmp_path):
        opened = build(tmp_path / "i", clustered(5))
        remove(tmp_path / "i", where="1")
        assert len(opened) == 0
        assert opened.search(clustered(2), top_k=3, threshold=-1) == [[], []]
        add(tmp_path / "i", clustered(5), records(5))
        assert [answers[0].id for answers in opened.search(clustered(5)[:2], top_k=1, threshold=-1)] == ["d0", "d1"]

    def test_a_removal_of_what_is_not_there_removes_nothing(self, tmp_path):
        opened = build(tmp_path / "i", clustered(5))
        with pytest.raises(UserError, match="no text with the id 'd7', 'x'. Nothing was removed"):
            remove(tmp_path / "i", "d1", "d7", "x")
        assert len(opened) == 5

    def test_two_texts_with_one_id(self, tmp_path):
        rows = [Record("a", "x", (None, None)), Record("a", "y", (None, None))]
        with pytest.raises(UserError, match="two texts have one id"):
            build(tmp_path / "i", clustered(2), rows=rows)
        assert not index.exists(tmp_path / "i")

    def test_only_one_process_changes_an_index_at_a_time(self, tmp_path):
        build(tmp_path / "i", clustered(5))
        with Writer(tmp_path / "i"), pytest.raises(UserError, match="another process is changing this index"):
            remove(tmp_path / "i", "d1")
        remove(tmp_path / "i", "d1")


class TestServedWhileItChanges:
    def test_searches_go_on_and_each_sees_one_version(self, tmp_path, small_segments):
        """Version n has the texts of n alone: an answer with two of them would be of two versions."""

        def rows(version, count):
            return [Record(f"{version} {i}", f"{version}", (None, version)) for i in range(count)]

        queries, seen, failed, stop = clustered(2, seed=9), [], [], threading.Event()
        opened = build(tmp_path / "i", clustered(1200), rows=rows(0, 1200))

        def search():
            while not stop.is_set():
                try:
                    for answers in opened.search(queries, top_k=5, threshold=-1):
                        seen.append({answer.text for answer in answers})
                        assert len(answers) == 5
                except Exception as e:
                    failed.append(e)
                    return

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for version in range(1, 9):
            build(tmp_path / "i", clustered(1200, seed=version), rows=rows(version, 1200))
        stop.set()
        for thread in threads:
            thread.join()
        assert not failed, failed
        assert all(len(of_answer) == 1 for of_answer in seen)
        assert opened.search(queries, top_k=1, threshold=-1)[0][0].text == "8"

    def test_the_old_files_answer_a_search_that_has_begun(self, tmp_path):
        opened = build(tmp_path / "i", clustered(30))
        before = opened._now()
        remove(tmp_path / "i", "d0")
        build(tmp_path / "i", clustered(30, seed=2), rows=records(30, 100))
        assert not (tmp_path / "i" / "000001-0000").exists()
        scores, rows = index._nearest(before, clustered(30)[:1], 1, None)
        assert index._records(before, rows[0])[0].id == "d0"
        assert scores[0, 0] == pytest.approx(1, abs=1e-5)
        assert opened.search(clustered(30)[:1], top_k=1, threshold=-1)[0][0].id != "d0"

    def test_an_index_that_another_model_has_replaced_is_refused(self, tmp_path):
        opened = build(tmp_path / "i", clustered(30))
        with Writer(tmp_path / "i") as writer:
            writer.build(LAYOUT, records(30), clustered(30), fingerprint=FINGERPRINT[::-1].copy(), model="other")
        with pytest.raises(UserError, match=r"made by another model \(other: other vectors"):
            opened.search(clustered(1), top_k=1, threshold=-1)


class TestKills:
    """In processes of their own, which `kill_index.py` forks."""

    @pytest.mark.parametrize("what", ["build", "replace", "add", "remove"])
    def test_after_a_kill_at_any_moment_nothing_is_lost_and_the_same_command_ends_the_same(self, tmp_path, what):
        done = subprocess.run(
            [sys.executable, "-m", "tests.serving.kill_index", what, str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["kills"] >= (20 if what in ("build", "add") else 8)

    def test_a_disk_that_fills_leaves_the_index_as_it_was(self, tmp_path):
        done = subprocess.run(
            [sys.executable, "-m", "tests.serving.kill_index", "full", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["failed"] >= 3

    def test_so_does_a_disk_that_fails_at_the_last_step(self, tmp_path, monkeypatch):
        opened = build(tmp_path / "i", clustered(30))

        def full(path, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(index, "write_whole", full)
            with pytest.raises(UserError, match="i: cannot be written .*No space left"):
                remove(tmp_path / "i", "d3")
        assert len(opened) == 30
        assert remove(tmp_path / "i", "d3")[0].count == 29


class TestFirstOfEach:
    def loop(self, vectors, threshold):
        kept, repeats = [], []
        for i, vector in enumerate(vectors):
            near = [j for j in kept if vectors[j] @ vector >= threshold]
            repeats.append(len(near) > 0)
            if not near:
                kept.append(i)
        return repeats

    @pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
    def test_a_row_is_kept_unless_it_is_near_to_one_that_was_kept_before(self, tmp_path, monkeypatch, threshold):
        monkeypatch.setattr(index, "_BLOCK", 64)
        monkeypatch.setattr(segment, "_MOST_ROWS", 300)
        vectors, progress = clustered(700), []
        repeats, cosines = index.first_of_each(
            build(tmp_path / "i", vectors), vectors, threshold, progress=progress.append
        )
        assert (repeats >= 0).tolist() == self.loop(vectors, threshold)
        rows = np.flatnonzero(repeats >= 0)
        assert 0 < len(rows) < 700
        assert (repeats[repeats[rows]] == -1).all(), "what is repeated is kept"
        assert (repeats[rows] < rows).all()
        np.testing.assert_allclose(cosines[rows], np.sum(vectors[rows] * vectors[repeats[rows]], axis=1), atol=1e-5)
        assert progress[-1] == 700

    def test_cells_find_nearly_all(self, tmp_path):
        vectors = np.repeat(clustered(1500), 2, axis=0) + np.random.default_rng(2).normal(scale=1e-3, size=(3000, DIM))
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")
        repeats, _ = index.first_of_each(build(tmp_path / "i", vectors, "ivf"), vectors, 0.999)
        assert (repeats[1::2] == np.arange(0, 3000, 2)).mean() > 0.98


class TestRefusals:
    def test_another_number_of_dimensions(self, tmp_path):
        build(tmp_path / "i", clustered(3))
        with pytest.raises(UserError, match="vectors of 24 numbers, this one makes 8"):
            Index(tmp_path / "i", np.eye(2, 8, dtype="float32"))
        with pytest.raises(UserError, match="vectors of 24 numbers; the new ones have 8"):
            add(tmp_path / "i", np.eye(2, 8, dtype="float32"), records(2))

    def test_rounding_is_no_other_model(self, tmp_path):
        build(tmp_path / "i", clustered(3))
        noise = np.random.default_rng(0).normal(scale=1e-4, size=FINGERPRINT.shape)
        assert len(Index(tmp_path / "i", (FINGERPRINT + noise).astype("float32"))) == 3

    @pytest.mark.parametrize("cut", ["codes.faiss", "rows.npy", "texts.sqlite", "-removed-", "index.json"])
    def test_a_file_that_is_cut_short_or_gone(self, tmp_path, cut):
        build(tmp_path / "i", clustered(100), bits=1)
        remove(tmp_path / "i", "d3")
        (path,) = (p for p in (tmp_path / "i").rglob("*") if cut in p.name and "trained" not in str(p))
        path.write_bytes(path.read_bytes()[:-30])
        uses = [
            lambda: Index(tmp_path / "i", FINGERPRINT),
            lambda: add(tmp_path / "i", clustered(1), records(1)),
            lambda: remove(tmp_path / "i", "d4"),
        ]
        for use in uses:
            with pytest.raises(UserError, match=r"i: the index is damaged .*Build it again|index.json:1: not JSON"):
                use()
        path.unlink()
        for use in uses:
            with pytest.raises(UserError, match=r"i: the index is damaged|no index there"):
                use()

    def test_no_index_there(self, tmp_path):
        with pytest.raises(UserError, match=r"no index there \(no index\.json\)"):
            Index(tmp_path, FINGERPRINT)

    def test_an_index_of_version_0_1_0(self, tmp_path):
        (tmp_path / "index.json").write_text('{"format": 1, "kind": "flat", "count": 3, "dim": 24, "model": "m"}')
        with pytest.raises(UserError, match="an index of format 1, which this version does not read. Build it again"):
            Index(tmp_path, FINGERPRINT)

    @pytest.mark.parametrize(
        ("kind", "bits", "message"),
        [("hnws", 32, "`kind` hnws: unknown. Did you mean 'hnsw'"), ("flat", 4, "`bits` 4: must be 32, 8, 1")],
    )
    def test_an_unknown_kind_or_number_of_bits(self, tmp_path, kind, bits, message):
        with pytest.raises(UserError, match=message):
            build(tmp_path / "i", clustered(3), kind, bits)

    def test_a_missing_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(UserError, match=r"pip install 'simcse-tf\[index\]'"):
            build(tmp_path / "i", clustered(3))


class Words:
    """A model that counts letters."""

    name = "letters"

    def __init__(self, power=1.0):
        self._power = power

    def encode_batch(self, texts):
        counts = np.array(
            [[1 + text.lower().count(c) ** self._power for c in "aeioudrst"] for text in texts], "float32"
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


class Prompted(Words):
    prompt_names = ("query", "passage")

    def encode_batch(self, texts, prompt_name=None):
        prompt = {"query": "ooo ", "passage": "ee ", None: ""}[prompt_name]
        return super().encode_batch([prompt + text for text in texts])


SENTENCES = ["a dog runs", "a cat sits", "two birds sing", "the house is red", "trees stand"]


class TestClient:
    def test_search_has_the_shape_of_its_queries(self):
        client = Client(Words())
        client.build_index(SENTENCES)
        ((sentence, score),) = client.search("a dog runs", top_k=1)
        assert sentence == "a dog runs"
        assert score == pytest.approx(1, abs=1e-5)
        many = client.search(["a dog runs", "trees stand"], top_k=2, threshold=-1)
        assert [answers[0][0] for answers in many] == ["a dog runs", "trees stand"]
        assert [len(answers) for answers in many] == [2, 2]
        assert client.search("a dog runs", threshold=1.1) == []

    def test_ids_and_metadata_are_kept_filtered_by_added_and_removed(self, tmp_path):
        client = Client(Words())
        metadata = [{"legs": 4, "noun": "dog"}, {"legs": 4, "noun": "cat"}, {"legs": 2, "noun": None}]
        built = client.build_index(SENTENCES[:3], to=tmp_path / "i", bits=8, ids=["a", "b", "c"], metadata=metadata)
        (answer,) = client.search("a dog runs", threshold=-1, where="legs < 4")
        assert (answer.id, answer.metadata) == ("c", {"legs": 2, "noun": None})
        other = Client(Words())
        other.load_index(tmp_path / "i")
        assert other.add(["a fox runs", "a dog ran"], ids=["d", "a"], metadata=metadata[:2]) == 1
        assert {answer.id for answer in client.search("a dog", threshold=-1)} == {"a", "b", "c", "d"}
        assert other.remove("b") == 1
        assert other.remove(where="noun IS NULL") == 1
        assert sorted(client.search("a dog", threshold=-1))[0][0] == "a dog ran"
        assert len(built) == 2

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"ids": ["x"]}, "one for each text, and there are fewer"),
            ({"ids": ["x", "x"]}, "two texts have one id"),
            ({"ids": [1, 2]}, "text 0: texts and ids must be strings"),
            ({"metadata": [{"a": 1}, {"b": 1}]}, "text 1: metadata b; expected a"),
            ({"metadata": [{"a": 1}, {"a": "x"}]}, "text 1: 'a' is \"x\", expected a number"),
        ],
    )
    def test_what_stands_beside_texts_must_fit(self, tmp_path, given, message):
        with pytest.raises(UserError, match=message):
            Client(Words()).build_index(SENTENCES[:2], to=tmp_path / "i", **given)
        assert not (tmp_path / "i").exists()

    def test_what_is_added_must_have_ids_if_the_others_have(self, tmp_path):
        client = Client(Words())
        client.build_index(SENTENCES, to=tmp_path / "i")
        with pytest.raises(UserError, match="`ids`: the index has none"):
            client.add(["x"], ids=["a"])
        assert client.add(["one more"]) == 0
        assert client.search("one more", top_k=1)[0].id == "5"

    def test_an_index_of_fewer_dimensions_is_searched_and_added_to_by_the_whole_model(self, tmp_path):
        Client(Words(), dim=6).build_index(SENTENCES, to=tmp_path / "i")
        client = Client(Words())
        client.load_index(tmp_path / "i")
        client.add(["a fox hides"])
        expected = Client(Words(), dim=6).similarity("a dog runs", ["a dog runs", "a fox hides"])
        found = dict(client.search("a dog runs", top_k=9, threshold=-1))
        assert [found["a dog runs"], found["a fox hides"]] == pytest.approx(expected.tolist(), abs=1e-5)

    def test_with_prompts_passages_get_the_one_and_queries_the_other(self, tmp_path):
        client = Client(Prompted())
        built = client.build_index(SENTENCES, to=tmp_path / "i")
        found = client.search("a dog runs", top_k=5, threshold=-1)
        query, passages = (
            Words().encode_batch(texts) for texts in (["ooo a dog runs"], [f"ee {s}" for s in SENTENCES])
        )
        assert dict(found) == pytest.approx(dict(zip(SENTENCES, (passages @ query[0]).tolist(), strict=True)), abs=1e-5)
        assert json.loads((built.directory / "index.json").read_text())["prompts"] is True
        again = Client(Prompted())
        again.load_index(tmp_path / "i")
        assert again.search("a dog runs", top_k=5, threshold=-1) == found
        again.add(["a fox"])
        assert "a fox" in dict(again.search("a fox", top_k=9, threshold=-1))
        with pytest.raises(UserError, match="i: was built with a model's prompts, and letters has none"):
            Client(Words()).load_index(tmp_path / "i")

    def test_an_index_without_prompts_is_searched_without(self, tmp_path):
        Client(Words()).build_index(SENTENCES, to=tmp_path / "i")
        client = Client(Prompted())
        client.load_index(tmp_path / "i")
        assert client.search("a dog runs", top_k=1)[0] == ("a dog runs", pytest.approx(1, abs=1e-5))

    def test_another_model(self, tmp_path):
        client = Client(Words())
        client.build_index(SENTENCES, to=tmp_path / "i")
        Client(Words()).load_index(tmp_path / "i")
        with pytest.raises(UserError, match=r"made by another model \(letters: other vectors") as caught:
            Client(Words(power=2)).load_index(tmp_path / "i")
        assert "damaged" not in str(caught.value)

    def test_texts_stream_through(self):
        seen = []

        def stream():
            for i in range(100):
                seen.append(i)
                yield f"sentence {i}"

        progress = []
        client = Client(Words())
        assert (
            len(client.build_index(stream(), batch_size=2, progress=lambda done: progress.append((done, len(seen)))))
            == 100
        )
        assert progress[0] == (32, 32), "more was read than one block"
        assert progress[-1][0] == 100

    def test_an_index_is_built_whole_or_not_at_all(self, tmp_path):
        def failing():
            yield "a"
            raise UserError("the server went away")

        with pytest.raises(UserError, match="went away"):
            Client(Words()).build_index(failing(), to=tmp_path / "i")
        assert list(tmp_path.iterdir()) == []

    def test_a_directory_that_exists(self, tmp_path):
        with pytest.raises(UserError, match="exists. Delete it, or choose another name"):
            Client(Words()).build_index(SENTENCES, to=tmp_path)

    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_file_of_sentences(self, tmp_path, compressed):
        content = ("\n".join(SENTENCES) + "\n\n  \n").encode()
        path = tmp_path / ("s.txt.gz" if compressed else "s.txt")
        path.write_bytes(gzip.compress(content) if compressed else content)
        client = Client(Words())
        assert len(client.build_index(path)) == len(SENTENCES)

    def test_a_table_and_what_is_added_from_another(self, tmp_path):
        (tmp_path / "s.csv").write_text("id,text,year\na,a dog runs,1999\nb,a cat sits,2001\n", "utf-8")
        (tmp_path / "t.csv").write_text("text,year,id\na fox,2002,c\n", "utf-8")
        client = Client(Words())
        client.build_index(tmp_path / "s.csv")
        client.add(tmp_path / "t.csv")
        assert [each.id for each in client.search("a fox", threshold=-1, where="year > 2000")] == ["c", "b"]

    def test_a_file_that_is_no_utf8_names_the_line(self, tmp_path):
        (tmp_path / "s.txt").write_bytes(b"good\nb\xffd\n")
        with pytest.raises(UserError, match=r"s\.txt:2: .*UTF-8"):
            Client(Words()).build_index(tmp_path / "s.txt")

    @pytest.mark.parametrize("texts", [[], "no/such/file.txt"])
    def test_nothing_to_index(self, texts):
        with pytest.raises(UserError, match=r"there are no texts|No such file"):
            Client(Words()).build_index(texts)

    def test_a_temporary_index_goes_with_its_client(self):
        client = Client(Words())
        directory = client.build_index(SENTENCES).directory
        assert directory.is_dir()
        del client
        assert not directory.exists()
