import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.serving import index
from simcse_tf.serving.client import Client
from simcse_tf.serving.index import Index

pytest.importorskip("faiss", reason="needs faiss: pip install -e '.[dev]'")
DIM = 24
FINGERPRINT = np.eye(2, DIM, dtype="float32")


def clustered(count, seed=0):
    """`(count, DIM)` unit vectors around 50 centres, as sentences about 50 topics."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(50, DIM))
    vectors = centres[rng.integers(50, size=count)] + 0.5 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32")


def batches(vectors, size=1000):
    for start in range(0, len(vectors), size):
        rows = vectors[start : start + size]
        yield [f"sentence {i}\n\u00fc" for i in range(start, start + len(rows))], rows


def build(directory, vectors, kind="flat"):
    return index.build(directory, batches(vectors), fingerprint=FINGERPRINT, model="a model", kind=kind)


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


class TestIndex:
    def test_flat_is_exact(self, tmp_path):
        vectors, queries = clustered(3000), clustered(20, seed=5)
        found = build(tmp_path / "i", vectors).search(queries, top_k=4, threshold=-1)
        scores = queries @ vectors.T
        for row, answer in zip(scores, found, strict=True):
            best = np.argsort(-row)[:4]
            assert [sentence for sentence, _ in answer] == [f"sentence {i}\n\u00fc" for i in best]
            np.testing.assert_allclose([score for _, score in answer], row[best], atol=1e-5)

    @pytest.mark.parametrize("kind", ["ivf", "hnsw"])
    def test_approximate_kinds_find_nearly_the_same(self, tmp_path, kind):
        vectors, queries = clustered(5000), clustered(50, seed=5)
        _, exact = build(tmp_path / "flat", vectors).nearest(queries, 10)
        _, found = build(tmp_path / kind, vectors, kind).nearest(queries, 10)
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
        assert recall > 0.8

    @pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
    def test_a_saved_index_gives_the_same_answers_and_lies_in_a_mapped_file(self, tmp_path, kind):
        built = build(tmp_path / "i", clustered(500), kind)
        expected = built.search(clustered(3), top_k=5, threshold=0.2)
        (tmp_path / "i").rename(tmp_path / "moved")
        loaded = Index(tmp_path / "moved", FINGERPRINT)
        assert len(loaded) == 500
        assert loaded.search(clustered(3), top_k=5, threshold=0.2) == expected
        mapped = {Path(line.split()[-1]).name for line in Path("/proc/self/maps").read_text().splitlines()}
        assert {"index.faiss", "sentences.utf8", "offsets.npy"} <= mapped
        assert not list((tmp_path / "moved").glob("vectors*")), "the spool stayed"

    @pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_few_sentences(self, tmp_path, kind, count):
        vectors = clustered(count)
        found = build(tmp_path / "i", vectors, kind).search(vectors[:1], top_k=100, threshold=0.999)
        assert found[0][0][0] == "sentence 0\n\u00fc"

    def test_the_file_of_an_ivf_index_is_the_one_that_faiss_writes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(index, "_ROWS", 300)
        faiss, vectors = pytest.importorskip("faiss"), clustered(1000)
        build(tmp_path / "i", vectors, "ivf")
        empty, _ = index._ivf(faiss, vectors)
        empty.add(vectors)
        faiss.write_index(empty, str(tmp_path / "whole"))
        assert (tmp_path / "i" / "index.faiss").read_bytes() == (tmp_path / "whole").read_bytes()

    @pytest.mark.parametrize("kind", ["flat", "ivf"])
    def test_a_search_may_be_confined_to_some_rows(self, tmp_path, kind):
        vectors = clustered(2000)
        made = build(tmp_path / "i", vectors, kind)
        among = np.arange(2000) % 3 == 1
        _, rows = made.nearest(vectors[among], 1, among=among)
        assert (rows[:, 0] == np.flatnonzero(among)).all()
        _, rows = made.nearest(vectors[~among], 4, among=among)
        assert among[rows[rows >= 0]].all()
        assert (made.nearest(vectors[:3], 2, among=among & False)[1] == -1).all()

    def test_empty_sentences_are_sentences(self, tmp_path):
        made = index.build(tmp_path / "i", [(["", ""], clustered(2))], fingerprint=FINGERPRINT, model="m")
        assert [made.sentence(i) for i in range(2)] == ["", ""]

    def test_an_index_is_built_whole_or_not_at_all(self, tmp_path):
        def failing():
            yield ["a"], clustered(1)
            raise UserError("the server went away")

        with pytest.raises(UserError, match="went away"):
            index.build(tmp_path / "i", failing(), fingerprint=FINGERPRINT, model="m")
        assert list(tmp_path.iterdir()) == []


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
    def test_another_model(self, tmp_path):
        client = Client(Words())
        client.build_index(SENTENCES, to=tmp_path / "i")
        Client(Words()).load_index(tmp_path / "i")
        with pytest.raises(UserError, match=r"made by another model \(letters: other vectors") as caught:
            Client(Words(power=2)).load_index(tmp_path / "i")
        assert "damaged" not in str(caught.value)

    def test_another_number_of_dimensions(self, tmp_path):
        build(tmp_path / "i", clustered(3))
        with pytest.raises(UserError, match="vectors of 24 numbers, this one makes 8"):
            Index(tmp_path / "i", np.eye(2, 8, dtype="float32"))

    def test_rounding_is_no_other_model(self, tmp_path):
        build(tmp_path / "i", clustered(3))
        noise = np.random.default_rng(0).normal(scale=1e-4, size=FINGERPRINT.shape)
        assert len(Index(tmp_path / "i", (FINGERPRINT + noise).astype("float32"))) == 3

    @pytest.mark.parametrize("file", ["index.faiss", "sentences.utf8", "offsets.npy", "fingerprint.npy", "index.json"])
    def test_a_file_that_is_cut_short(self, tmp_path, file):
        build(tmp_path / "i", clustered(100))
        path = tmp_path / "i" / file
        path.write_bytes(path.read_bytes()[:-30])
        with pytest.raises(UserError, match="i: the index is damaged"):
            Index(tmp_path / "i", FINGERPRINT)

    def test_no_index_there(self, tmp_path):
        with pytest.raises(UserError, match=r"no index there \(no index\.json\)"):
            Index(tmp_path, FINGERPRINT)

    def test_an_unknown_kind(self, tmp_path):
        with pytest.raises(UserError, match="`kind` hnws: unknown. Did you mean 'hnsw'"):
            build(tmp_path / "i", clustered(3), "hnws")

    def test_a_directory_that_exists(self, tmp_path):
        with pytest.raises(UserError, match="exists. Delete it, or choose another name"):
            build(tmp_path, clustered(3))

    def test_a_missing_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        with pytest.raises(UserError, match=r"pip install 'simcse-tf\[index\]'"):
            build(tmp_path / "i", clustered(3))


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
        with pytest.raises(UserError, match="i: was built with a model's prompts, and letters has none"):
            Client(Words()).load_index(tmp_path / "i")

    def test_an_index_without_prompts_says_nothing_of_them_and_is_searched_without(self, tmp_path):
        built = Client(Words()).build_index(SENTENCES, to=tmp_path / "i")
        assert set(built.about) == {"format", "kind", "count", "dim", "model"}
        client = Client(Prompted())
        client.load_index(tmp_path / "i")
        assert client.search("a dog runs", top_k=1)[0] == ("a dog runs", pytest.approx(1, abs=1e-5))

    def test_sentences_stream_through(self):
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

    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_file_of_sentences(self, tmp_path, compressed):
        content = ("\n".join(SENTENCES) + "\n\n  \n").encode()
        path = tmp_path / ("s.txt.gz" if compressed else "s.txt")
        path.write_bytes(gzip.compress(content) if compressed else content)
        client = Client(Words())
        assert len(client.build_index(path)) == len(SENTENCES)

    def test_a_file_that_is_no_utf8_names_the_line(self, tmp_path):
        (tmp_path / "s.txt").write_bytes(b"good\nb\xffd\n")
        with pytest.raises(UserError, match=r"s\.txt:2: .*UTF-8"):
            Client(Words()).build_index(tmp_path / "s.txt")

    @pytest.mark.parametrize("sentences", [[], "no/such/file.txt"])
    def test_nothing_to_index(self, sentences):
        with pytest.raises(UserError, match=r"there are no sentences|no such file"):
            Client(Words()).build_index(sentences)

    def test_a_temporary_index_goes_with_its_client(self):
        client = Client(Words())
        directory = client.build_index(SENTENCES).directory
        assert directory.is_dir()
        del client
        assert not directory.exists()
