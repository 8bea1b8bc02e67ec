import gzip
import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from simcse_tf.demo import (
    about,
    before_after,
    clusters,
    compare,
    duplicates,
    layouts,
    map,
    matrix,
    offer,
    pictures,
    rank,
    sizes,
    text,
)
from simcse_tf.demo.indexes import Indexes
from simcse_tf.demo.models import Registry
from simcse_tf.demo.search import search
from simcse_tf.demo.vectors import Vectors
from simcse_tf.errors import UserError
from tests.conftest import SENTENCES as LINES

SENTENCES = ["a man plays the guitar .", "a woman reads the book .", "the old dog sleeps .", "two birds in a tree ."]


@pytest.fixture(scope="session")
def registry(models):
    return Registry(models)


def silent(*_):
    pass


# Text and files


def test_html_and_template_marks_are_shown_not_run():
    escaped = text.escape('<script>alert(1)</script> {{value}} ${1+1} `x` "q"')
    assert not set('<>{}$`"') & set(escaped)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "is empty"),
        ("  \n ", "is empty"),
        (None, "is empty"),
        (5, "expected a string, not int"),
        ("x" * 100_000, "has 100,000 characters; at most 5,000"),
    ],
)
def test_a_sentence_that_cannot_be_used_is_refused_with_the_reason(given, message):
    with pytest.raises(UserError, match=message):
        text.sentence(given, "Sentence A")


def test_lines_are_counted_before_anything_is_encoded():
    with pytest.raises(UserError, match="5,000 lines; at most 50"):
        text.sentences("x\n" * 5000, "Sentences", least=2, most=50)
    with pytest.raises(UserError, match="1 of at least 2 lines"):
        text.sentences("x\n\n", "Sentences", least=2, most=50)
    with pytest.raises(UserError, match="list of strings"):
        text.sentences(["x", 1], "Sentences", least=2, most=50)


def test_a_file_that_is_no_utf8_is_named_with_its_line_but_not_its_folder(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(b"fine\nbroken \xff\n")
    with pytest.raises(UserError, match=r"^mine\.txt:2: byte 0xff") as caught:
        text.file_sentences(path, None, least=1, most=10)
    assert str(tmp_path) not in str(caught.value)


def test_files_of_another_type_are_refused_whatever_the_case(tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF")
    with pytest.raises(UserError, match=r"type '\.pdf'"):
        text.columns(tmp_path / "a.pdf")
    (tmp_path / "A.TXT").write_text("one\n", "utf-8")
    assert text.file_sentences(tmp_path / "A.TXT", None, least=1, most=10) == ["one"]


def test_the_text_column_of_a_table_is_the_one_with_the_longest_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("id,text,kind\n1,a sentence of some length,x\n2,and another,y\n", "utf-8")
    assert text.guess_column(path, text.columns(path)) == "text"
    assert text.file_sentences(path, None, least=1, most=10) == ["a sentence of some length", "and another"]
    assert text.file_sentences(path, "kind", least=1, most=10) == ["x", "y"]
    with pytest.raises(UserError, match="no column 'txt'. Did you mean 'text'"):
        text.file_sentences(path, "txt", least=1, most=10)


def test_a_file_with_too_many_lines_is_refused_while_it_is_read(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("x\n" * 11, "utf-8")
    with pytest.raises(UserError, match="more than 10 lines"):
        text.file_sentences(path, None, least=1, most=10)


# Models


def test_every_version_is_found_and_the_base_encoder_comes_last(registry):
    assert registry.keys() == ["tiny/1", "base/1"]


def test_a_new_version_appears_without_a_restart_and_a_model_is_loaded_once(models, tmp_path):
    root = tmp_path / "saved_models"
    registry = Registry(root)
    assert registry.keys() == []
    with pytest.raises(UserError, match="no model in .* yet"):
        registry.model()
    shutil.copytree(models / "tiny", root / "mine")
    assert registry.keys() == ["mine/1"]
    first = registry.model()
    assert registry.model("mine") is first
    shutil.copytree(models / "tiny" / "1", root / "mine" / "2")
    (root / "mine" / "2" / "saved_model.pb").touch()
    assert registry.keys() == ["mine/2", "mine/1"]
    assert registry.newest() == ["mine/2"]
    assert registry.model("mine").key == "mine/2"
    assert registry.model("mine/1") is first


def test_a_version_that_was_replaced_under_its_number_is_loaded_anew(models, tmp_path):
    root = tmp_path / "saved_models"
    shutil.copytree(models / "tiny", root / "mine")
    registry = Registry(root)
    before = registry.model("mine").encode(SENTENCES)
    shutil.rmtree(root / "mine")
    shutil.copytree(models / "base", root / "mine")
    (root / "mine" / "1" / "saved_model.pb").touch()
    after = registry.model("mine").encode(SENTENCES)
    assert np.abs(before - after).max() > 0.01


@pytest.mark.parametrize("key", ["../../etc", "tiny/1/../../base/1", "tiny/7", "/etc", "x" * 10_000])
def test_only_what_is_listed_can_be_opened(registry, key):
    with pytest.raises(UserError, match="no model"):
        registry.model(key)


def test_the_card_is_shown_without_its_head_for_programs(registry, models, tmp_path):
    card = about.card(registry, "tiny/1")
    assert card.startswith("# tiny")
    assert "Version 1 of `tiny`" in card
    shutil.copytree(models / "tiny", tmp_path / "old")
    (tmp_path / "old" / "1" / "README.md").unlink()
    assert "has no card" in about.card(Registry(tmp_path), "old/1")


# What the tabs compute


def test_compare_gives_the_clients_score_for_the_chosen_and_every_other_model(registry, client, models):
    from simcse_tf.serving.client import Client

    found = compare.compare(registry, SENTENCES[0], SENTENCES[1])
    assert found["model"] == "tiny/1"
    assert found["score"] == pytest.approx(client.similarity(*SENTENCES[:2]), abs=1e-6)
    (other,) = found["others"]
    assert other["model"] == "base/1"
    assert other["score"] == pytest.approx(Client(models / "base").similarity(*SENTENCES[:2]), abs=1e-6)
    assert found["unrelated"][0] < found["unrelated"][1] <= 1
    json.dumps(found)


def test_compare_escapes_what_it_shows(registry):
    shown = compare.picture(registry, "<img src=x onerror=alert(1)>", "{{value}}", None)
    assert "<img" not in shown
    assert "{{" not in shown


def test_rank_puts_the_nearest_first_and_shows_html_as_text(registry, client):
    found = rank.rank(registry, SENTENCES[0], [*SENTENCES[1:], SENTENCES[0], "<b>x</b>"])
    assert found[0]["candidate"] == SENTENCES[0]
    assert found[0]["score"] == pytest.approx(1, abs=1e-5)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    by_text = {row["candidate"]: row["score"] for row in found}
    assert by_text[SENTENCES[2]] == pytest.approx(client.similarity(SENTENCES[0], SENTENCES[2]), abs=1e-6)
    table = pictures.bars([(row["candidate"], row["score"]) for row in found])
    assert "<b>x</b>" not in table
    assert "&lt;b&gt;x&lt;/b&gt;" in table


def test_rank_and_search_use_the_models_prompts(exported, tmp_path):
    registry = Registry(exported.parent)
    client = registry.model().client
    assert client.prompt_names == ("query", "passage")
    query, passages = client.encode(SENTENCES[1], prompt_name="query"), client.encode(SENTENCES, prompt_name="passage")
    expected = pytest.approx(dict(zip(SENTENCES, (passages @ query).tolist(), strict=True)), abs=1e-5)
    found = rank.rank(registry, SENTENCES[1], SENTENCES)
    assert {row["candidate"]: row["score"] for row in found} == expected
    file = tmp_path / "lines.txt"
    file.write_text("\n".join(SENTENCES), "utf-8")
    indexes = Indexes(tmp_path / "indexes")
    name, _ = indexes.build(file, None, registry.model(), silent)
    assert {row["sentence"]: row["score"] for row in search(indexes, SENTENCES[1], name)} == expected


def test_the_matrix_holds_every_pair_in_the_order_of_its_rows(registry, client):
    given = [SENTENCES[0], SENTENCES[2], SENTENCES[0], SENTENCES[3]]
    found = matrix.matrix(registry, given)
    assert found["sentences"] == [given[i] for i in found["order"]]
    expected = client.similarity(found["sentences"], found["sentences"])
    np.testing.assert_allclose(found["scores"], expected, atol=1e-6)
    # Equal sentences end side by side.
    places = [i for i, sentence in enumerate(found["sentences"]) if sentence == SENTENCES[0]]
    assert places[1] - places[0] == 1
    assert matrix.matrix(registry, given, ordered=False)["sentences"] == given


TWELVE = [f"{a} {b}" for a in ("a man", "the dog", "red birds") for b in ("sleeps", "runs", "eats", "sings")]


@pytest.fixture
def maps(registry):
    pytest.importorskip("faiss")
    return map.Maps(registry, Vectors())


def received(drawn):
    """What the browser gets."""
    return json.loads(gzip.decompress(drawn.sent))


def test_the_map_gives_every_sentence_a_place_and_a_group(maps, client):
    name, drawn = maps.draw(TWELVE, {}, "pca", [None], silent)
    assert maps.find(name) is drawn
    data = received(drawn)
    assert data["texts"] == TWELVE
    ((xs, ys),) = data["points"]
    assert len(xs) == len(ys) == 12
    # Both axes have one scale.
    spread = np.ptp(drawn.points[0], axis=0)
    assert np.ptp(ys) / np.ptp(xs) == pytest.approx(spread[1] / spread[0], rel=1e-3)
    (cluster,) = data["colours"]
    assert set(cluster["codes"]) == set(range(len(cluster["names"])))
    (near,) = maps.near(drawn, index=0)
    expected = np.sort(client.encode(TWELVE) @ client.encode(TWELVE[0]))[::-1]
    assert [score for _, score in near["nearest"]] == pytest.approx(expected[1:11], abs=1e-3)
    assert 0 not in [i for i, _ in near["nearest"]]


def test_a_sentence_that_is_typed_has_a_score_with_every_dot(maps, client):
    _, drawn = maps.draw(TWELVE, {}, "pca", [None], silent)
    (found,) = maps.near(drawn, query=TWELVE[3])
    assert found["nearest"][0] == (3, pytest.approx(1, abs=1e-4))
    np.testing.assert_allclose(
        np.array(found["scores"]) / 1000, client.encode(TWELVE) @ client.encode(TWELVE[3]), atol=1e-3
    )


@pytest.mark.parametrize(
    "asked", [{"index": 12}, {"index": "0"}, {"query": ""}, {"query": 5}, {"query": "x" * 100_000}]
)
def test_a_map_refuses_to_look_for_what_is_not_there(maps, asked):
    _, drawn = maps.draw(TWELVE, {}, "pca", [None], silent)
    with pytest.raises(UserError):
        maps.near(drawn, **asked)


@pytest.mark.parametrize("name", [None, 5, "../x", {"a": 1}])
def test_a_map_that_is_not_held_is_said_to_be(maps, name):
    with pytest.raises(UserError, match="Draw it again"):
        maps.find(name)


def test_another_colour_is_no_other_layout_and_the_same_map_is_drawn_once(maps, monkeypatch):
    _, first = maps.draw(TWELVE, {}, "pca", [None], silent)
    monkeypatch.setattr(layouts, "lay_out", lambda *_: pytest.fail("laid out again"))
    _, coloured = maps.draw(TWELVE, {"kind": ["a", "b"] * 6}, "pca", [None], silent)
    assert coloured.points[0] is first.points[0]
    assert [colour["name"] for colour in received(coloured)["colours"]] == ["cluster", "kind"]
    assert maps.draw(TWELVE, {}, "pca", [None], silent)[1] is first


def test_two_models_give_two_maps_of_which_one_is_turned_like_the_other(maps):
    # A model beside itself is one map.
    assert map._changed(maps.draw(TWELVE, {}, "pca", ["tiny/1"], silent)[1]) == ""
    _, drawn = maps.draw(TWELVE, {}, "pca", ["tiny/1", "base/1"], silent)
    data = received(drawn)
    assert data["models"] == ["tiny/1", "base/1"]
    assert len(data["points"]) == 2
    for index, before, after in map.changed(drawn):
        assert len(before) == len(after) == 10
        assert index not in before
        assert set(before) != set(after)


def test_turned_and_mirrored_points_are_put_back():
    points = np.random.default_rng(0).normal(size=(20, 2))
    np.testing.assert_allclose(layouts.aligned(3 * points @ [[0, 1], [1, 0]] + 5, points), points, atol=1e-9)


@pytest.mark.parametrize("method", layouts.methods())
def test_a_map_of_equal_sentences_is_no_error(maps, method):
    _, drawn = maps.draw(["a dog"] * 5, {}, method, [None], silent)
    assert np.isfinite(drawn.points[0]).all()
    assert drawn.points[0].shape == (5, 2)


def test_rare_values_share_a_colour_and_columns_of_many_values_are_none(registry, tmp_path):
    found = map._grouped("n", [str(i // 2) for i in range(30)])
    assert len(found.names) == 10
    assert found.names[-1] == "6 others"
    assert found.codes.max() == 9
    path = tmp_path / "t.csv"
    path.write_text("id,text,kind,gap\n1,one dog,x,a\n2,two dogs,y,\n3,a cat,x,b\n", "utf-8")
    assert map.read_columns(path, "text") == {"kind": ["x", "y", "x"]}


def test_clusters_are_named_by_words_that_the_others_do_not_have():
    texts = ["guitar music", "music guitar band", "fresh bread", "bread oven", "the music of bread"] * 3
    names = clusters.names(texts, np.array([0, 0, 1, 1, 1] * 3))
    assert names[0].startswith("guitar")
    assert "oven" in names[1]
    assert clusters.names(["?!", "...", "?!"], np.array([0, 1, 0])) == ["?!", "..."]


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_a_layout_that_takes_long_tells_how_far_it_is(maps, method):
    if method not in layouts.methods():
        pytest.skip("needs umap-learn: pip install -e '.[umap]'")
    shares = []
    _, drawn = maps.draw(TWELVE, {}, method, [None], lambda share, _: shares.append(share))
    assert drawn.points[0].shape == (12, 2)
    assert shares == sorted(shares)
    assert len(shares) > 5


@pytest.mark.parametrize(
    ("method", "count", "message"),
    [("spring", 4, "expected one of pca"), ("tsne", 20_000, "10,000"), (None, 4, "expected")],
)
def test_a_layout_that_cannot_be_is_refused_before_anything_is_encoded(method, count, message):
    with pytest.raises(UserError, match=message):
        layouts.check(method, count)


def test_a_row_goes_if_one_that_is_kept_said_it_before():
    texts = ["a", "b", " A ", "c", "d"]
    # c is near to b, which repeats a: so c stays where it is not near to a.
    pairs = duplicates.Pairs(np.array([[0, 1], [1, 3], [3, 4]]), np.array([0.9, 0.8, 0.7], "float32"))
    of, cosines = duplicates.repeats(texts, pairs, 0.75)
    assert of.tolist() == [-1, 0, 0, -1, -1]
    assert cosines.tolist() == pytest.approx([0, 0.9, 1, 0, 0])
    assert duplicates.repeats(texts, pairs, 0.65)[0].tolist() == [-1, 0, 0, -1, 3]
    assert duplicates.repeats(texts, pairs, 0.95)[0].tolist() == [-1, -1, 0, -1, -1]


def test_near_rows_are_found_once_for_every_threshold(registry, client):
    pytest.importorskip("faiss")
    found = duplicates.Duplicates(Vectors())
    pairs = found.pairs(LINES, registry.model(), silent)
    assert found.pairs(LINES, registry.model(), silent) is pairs
    assert (pairs.rows[:, 0] < pairs.rows[:, 1]).all()
    vectors = client.encode(LINES)
    near = np.argwhere(np.triu(vectors @ vectors.T >= 0.6, 1))
    assert len(pairs.rows) >= min(len(near), len(LINES) * 25)
    np.testing.assert_allclose(pairs.cosines, (vectors[pairs.rows[:, 0]] * vectors[pairs.rows[:, 1]]).sum(1), atol=1e-5)


def test_small_vectors_are_measured_against_whole_ones(registry, client):
    pytest.importorskip("faiss")
    vectors = client.encode(LINES)
    whole = sizes.measure(vectors, vectors.shape[1], "float32")
    assert (whole.recall, whole.bytes) == (1, 4 * vectors.shape[1])
    small = sizes.measure(vectors, vectors.shape[1] // 2, "int8")
    bits = sizes.measure(vectors, 8, "binary")
    assert (small.bytes, bits.bytes) == (vectors.shape[1] // 2, 1)
    assert bits.recall < small.recall < 1
    with pytest.raises(UserError, match="no more than that"):
        sizes.measure(vectors, 10_000, "int8")


def test_an_index_answers_as_the_client_does_and_can_be_taken_away(registry, client, tmp_path):
    pytest.importorskip("faiss")
    from simcse_tf.serving.client import Client

    file = tmp_path / "lines.txt"
    file.write_text("\n".join(SENTENCES), "utf-8")
    indexes = Indexes(tmp_path / "indexes")
    told = []
    name, built = indexes.build(file, None, registry.model(), lambda done, total: told.append((done, total)))
    assert told == [(0, 4), (4, 4)]
    assert built.lines == 4
    found = search(indexes, SENTENCES[2], name, 2)
    assert found[0]["sentence"] == SENTENCES[2]
    expected = np.sort(client.encode(SENTENCES) @ client.encode(SENTENCES[2]))[::-1]
    assert [row["score"] for row in found] == pytest.approx(expected[:2], abs=1e-5)

    vectors, packed = indexes.downloads(name)
    np.testing.assert_allclose(np.load(vectors), client.encode(SENTENCES), atol=1e-6)
    shutil.unpack_archive(packed, tmp_path / "taken")
    mine = Client(client.name)
    mine.load_index(tmp_path / "taken" / "index")
    assert mine.search(SENTENCES[1], top_k=1)[0][0] == SENTENCES[1]

    name, small = indexes.build(file, None, registry.model(), silent, "hnsw", 1)
    about = indexes.get(name).index.about
    assert (about.kind, about.bits) == ("hnsw", 1)
    assert small.milliseconds > 0
    assert search(indexes, SENTENCES[2], name, 1)[0]["sentence"] == SENTENCES[2]


class Letters:
    """A backend without TensorFlow: vectors by the first letter."""

    name = "letters"

    def encode_batch(self, texts):
        vectors = np.zeros((len(texts), 128), "float32")
        vectors[range(len(texts)), [ord(text[:1] or " ") % 128 for text in texts]] = 1
        return vectors


@pytest.fixture
def packing(monkeypatch):
    """Archives are begun (`started`) but not finished before the test says so (`finish`)."""
    make_archive = shutil.make_archive
    state = SimpleNamespace(started=threading.Event(), finish=threading.Event(), archives=0)

    def slow(*arguments):
        state.archives += 1
        state.started.set()
        assert state.finish.wait(60)
        return make_archive(*arguments)

    monkeypatch.setattr("simcse_tf.demo.indexes.shutil.make_archive", slow)
    yield state
    state.finish.set()


def test_searches_are_answered_while_an_index_is_packed_and_it_is_packed_once(packing, tmp_path):
    pytest.importorskip("faiss")
    from simcse_tf.serving.client import Client

    (tmp_path / "lines.txt").write_text("a dog\nthe cat\n", "utf-8")
    model = SimpleNamespace(key="letters/1", borrow=lambda: Client(Letters()))
    indexes = Indexes(tmp_path / "indexes")
    name, _ = indexes.build(tmp_path / "lines.txt", None, model, silent)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(indexes.downloads, name) for _ in range(2)]
        assert packing.started.wait(60)
        try:
            answer = pool.submit(search, indexes, "the", name, 1).result(timeout=20)
        finally:
            packing.finish.set()
        assert answer[0]["sentence"] == "the cat"
        assert waiting[0].result() == waiting[1].result()
    assert packing.archives == 1


def test_an_index_is_not_deleted_while_it_is_packed(packing, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    from simcse_tf.serving.client import Client

    monkeypatch.setattr("simcse_tf.demo.indexes._KEPT", 1)
    (tmp_path / "lines.txt").write_text("a dog\n", "utf-8")
    model = SimpleNamespace(key="letters/1", borrow=lambda: Client(Letters()))
    indexes = Indexes(tmp_path / "indexes")
    first, _ = indexes.build(tmp_path / "lines.txt", None, model, silent)
    with ThreadPoolExecutor(2) as pool:
        packed = pool.submit(indexes.downloads, first)
        assert packing.started.wait(60)
        newer = pool.submit(indexes.build, tmp_path / "lines.txt", None, model, silent)
        deadline = time.monotonic() + 60
        while first in indexes._built and time.monotonic() < deadline:
            time.sleep(0.01)
        packing.finish.set()
        packed.result()
        newer.result()
    with pytest.raises(UserError, match="no longer"):
        indexes.downloads(first)


@pytest.mark.parametrize(("name", "message"), [(None, "No index yet"), ("../x", "no longer"), ({"a": 1}, "no longer")])
def test_an_index_that_is_not_there_is_said_to_be(tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        search(Indexes(tmp_path), "query", name)


def test_old_indexes_are_deleted(registry, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("simcse_tf.demo.indexes._KEPT", 2)
    (tmp_path / "l.txt").write_text("a dog\n", "utf-8")
    indexes = Indexes(tmp_path / "indexes")
    names = [indexes.build(tmp_path / "l.txt", None, registry.model(), silent)[0] for _ in range(3)]
    assert sorted(p.name for p in (tmp_path / "indexes").iterdir()) == sorted(names[1:])
    with pytest.raises(UserError, match="no longer"):
        indexes.get(names[0])


def test_before_and_after_measures_what_the_evaluation_measures(registry, client):
    from simcse_tf.evaluation.geometry import geometry
    from simcse_tf.evaluation.pairs import bundled

    expected = geometry(client.encode, bundled())
    shown = before_after.measured(registry.model("tiny"))
    assert f'data-is="alignment">{expected.alignment:.3f}<' in shown
    assert f'data-is="uniformity">{expected.uniformity:.3f}<' in shown
    dials = before_after.angles(registry.model("tiny"), SENTENCES[0], [SENTENCES[1]], [SENTENCES[2]])
    assert f"{client.similarity(SENTENCES[0], SENTENCES[1]):.3f}" in dials


def test_the_model_before_is_pooled_as_the_one_after_began(models, tmp_path, monkeypatch):
    root = tmp_path / "saved_models"
    for name, said in (
        ("base", {"source": "minilm", "pooling": "avg"}),
        ("mine", {"source": "runs/x", "pooling": "cls", "trained_from": {"preset": "minilm", "pooling": "cls"}}),
    ):
        shutil.copytree(models / "tiny", root / name)
        (root / name / "1" / "assets.extra" / "encoder.json").write_text(json.dumps(said), "utf-8")

    def export(source, to, *, pooling):
        assert (source, to, pooling) == ("minilm", root / "before-minilm-cls", "cls")
        shutil.copytree(models / "tiny", to)
        (to / "1" / "assets.extra" / "encoder.json").write_text('{"source": "minilm", "pooling": "cls"}', "utf-8")

    monkeypatch.setattr(offer, "export", export)
    registry = Registry(root)
    assert before_after.began_with(registry, "mine/1", silent) == "before-minilm-cls/1"
    # No page opens with it, though it is the newest.
    (root / "before-minilm-cls" / "1" / "saved_model.pb").touch()
    assert registry.keys()[0] == "mine/1"
    monkeypatch.setattr(offer, "export", lambda *_, **__: pytest.fail("exported again"))
    assert before_after.began_with(registry, "mine/1", silent) == "before-minilm-cls/1"
    with pytest.raises(UserError, match="does not say what it was trained from"):
        before_after.began_with(registry, "base/1", silent)


def test_the_triplets_that_training_moved_are_listed(registry):
    shown = before_after.moved(registry.model("base"), registry.model("tiny"))
    assert shown.count("<tr>") == 9
    assert "331 bundled triplets" in shown or "bundled triplets" in shown


# No model, and the command


def test_a_failed_export_of_the_base_encoder_says_why(tmp_path):
    (tmp_path / "base").write_text("in the way", "utf-8")
    steps = offer.export_base(tmp_path)
    assert "about a minute" in next(steps)
    with pytest.raises(UserError, match="The export failed: error: "):
        next(steps)


def test_help_is_fast_and_imports_neither_gradio_nor_tensorflow():
    code = (
        "import sys\nfrom simcse_tf.demo.__main__ import main\ntry:\n    main(['--help'])\nexcept SystemExit as e:\n"
        "    assert e.code == 0\nassert not {'gradio', 'tensorflow', 'numpy'} & set(sys.modules), 'heavy'"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--root-path" in done.stdout
    assert time.perf_counter() - begun < 10


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "0"], "expected 1 to 65535"),
        (["--auth", "me"], "expected USER:PASSWORD"),
        (["--models", __file__], "not a directory"),
        (["--runs", __file__], "not a directory"),
        (["--served", "saved_models/x"], "expected http://"),
    ],
)
def test_a_wrong_flag_is_told_before_anything_starts(flags, message):
    from simcse_tf.demo.__main__ import main

    with pytest.raises(UserError, match=message):
        main(flags)
