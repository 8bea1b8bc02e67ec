from itertools import islice

import numpy as np
import pytest
import tensorflow as tf

from simcse_tf.data import sources
from simcse_tf.data.pipeline import Feed, shuffled, token_batches, tokenized
from simcse_tf.errors import UserError
from tests.conftest import SENTENCES, VOCABULARY

ROWS = [(str(i),) for i in range(1000)]


def tiny_tokenizer():
    import keras_hub

    return keras_hub.models.BertTokenizer(VOCABULARY, lowercase=True)


class TestShuffled:
    @pytest.mark.parametrize("buffer", [1, 7, 1000, 5000])
    def test_every_row_comes_once(self, buffer):
        assert sorted(shuffled(ROWS, buffer=buffer, seed=1, epoch=0)) == sorted(ROWS)

    def test_seed_and_epoch_decide_the_order(self):
        orders = {(s, e): tuple(shuffled(ROWS, buffer=100, seed=s, epoch=e)) for s in (1, 2) for e in (0, 1)}
        assert len(set(orders.values())) == 4
        assert tuple(shuffled(ROWS, buffer=100, seed=1, epoch=0)) == orders[1, 0]

    def test_a_file_no_longer_than_the_buffer_is_shuffled_perfectly(self):
        """Every place is as likely: the mean place of the first row over many seeds is the middle."""
        places = [list(shuffled(ROWS[:50], buffer=50, seed=s, epoch=0)).index(ROWS[0]) for s in range(400)]
        assert abs(np.mean(places) - 24.5) < 3 * np.std(np.arange(50)) / np.sqrt(400)

    def test_no_row_comes_more_than_a_buffer_before_its_turn(self):
        out = [int(row[0]) for row in shuffled(ROWS, buffer=64, seed=3, epoch=0)]
        assert max(row - place for place, row in enumerate(out)) <= 64

    def test_only_the_buffer_is_read_ahead(self):
        read = []

        def rows():
            for row in ROWS:
                read.append(row)
                yield row

        next(iter(shuffled(rows(), buffer=10, seed=0, epoch=0)))
        assert len(read) <= 10 + 4096
        endless = ((str(i),) for i in iter(int, 1))
        assert len(list(islice(shuffled(endless, buffer=10, seed=0, epoch=0), 5000))) == 5000


class TestFeed:
    def batches(self, path, n, **settings):
        feed = Feed(sources.open_source(str(path)), **({"batch_size": 16, "seed": 5} | settings))
        return [batch.tolist() for batch in islice(iter(feed), n)]

    def test_an_epoch_holds_each_row_once_and_drops_the_rest(self, sentences_file):
        batches = self.batches(sentences_file, 3)
        rows = [row[0].decode() for batch in batches for row in batch]
        assert len(set(rows)) == 48
        assert set(rows) < set(SENTENCES)

    @pytest.mark.parametrize("step", [1, 2, 3, 5, 6, 7])  # an epoch has 3
    @pytest.mark.parametrize("buffer", [10, 100])
    def test_starting_at_a_step_gives_what_comes_there(self, sentences_file, step, buffer):
        whole = self.batches(sentences_file, 10, shuffle_buffer=buffer)
        assert whole[step:] == self.batches(sentences_file, 10 - step, start_step=step, shuffle_buffer=buffer)

    @pytest.mark.parametrize("step", [1, 3, 4, 8])  # an epoch has 3
    def test_pairs_drawn_from_classes_are_the_same_from_any_step(self, tmp_path, step):
        path = tmp_path / "classes.csv"
        path.write_text("text,label\n" + "".join(f"{s},{i % 7}\n" for i, s in enumerate(SENTENCES)))

        def batches(n, **settings):
            feed = Feed(sources.open_source(str(path)), batch_size=16, seed=5, **settings)
            return [(texts.tolist(), labels.tolist()) for texts, labels in islice(feed, n)]

        whole = batches(10)
        assert whole[step:] == batches(10 - step, start_step=step)
        for texts, labels in whole:
            classes = {s.encode(): i % 7 for i, s in enumerate(SENTENCES)}
            assert [[classes[anchor], classes[positive]] for anchor, positive in texts] == [[n, n] for n in labels]
        epochs = [[pair for texts, _ in whole[i : i + 3] for pair in texts] for i in (0, 3)]
        assert {anchor for anchor, _ in epochs[0]} != {anchor for anchor, _ in epochs[1]}  # 12 of 60 are left over

    def test_lines_are_read_once_an_epoch_while_the_batches_are_taken(self, sentences_file):
        read, source = [], sources.open_source(str(sentences_file))

        def counted(reject):
            for row in source.read(reject):
                read.append(row)
                yield row
            return ""

        feed = Feed(sources.Source("counted", 1, counted), batch_size=16, seed=5, shuffle_buffer=20)
        batches = iter(feed)
        next(batches)
        # All that is held: the reader looks 4,096 rows ahead, and the file ends before.
        assert len(read) == 60
        list(islice(batches, 5))
        assert read == [(s,) for s in SENTENCES] * 2

    @pytest.mark.parametrize("step", [0, 2, 4])
    def test_a_teachers_vectors_come_with_their_rows(self, tmp_path, step):
        path = tmp_path / "pairs.csv"
        pairs = list(zip(SENTENCES[:40], SENTENCES[20:], strict=True))
        path.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in pairs))
        numbers = {text.encode(): [float(i), 1.0, 2.0] for i, text in enumerate(SENTENCES)}
        taught = [np.array([numbers[row[view].encode()] for row in pairs], "float32") for view in range(2)]
        settings = {"batch_size": 16, "seed": 5, "start_step": step}
        plain = islice(iter(Feed(sources.open_source(str(path)), **settings)), 5)
        feed = Feed(sources.open_source(str(path)), **settings, teacher=taught)
        for texts, (again, beside) in zip(plain, feed, strict=False):
            np.testing.assert_array_equal(texts, again)
            np.testing.assert_array_equal(beside["teacher"], [[numbers[text] for text in row] for row in texts])

    def test_a_feed_ends_where_its_teachers_vectors_do(self, sentences_file):
        taught = [np.zeros((24, 2), "float32")]
        settings = {"batch_size": 8, "seed": 5, "shuffle_buffer": 8}
        feed = Feed(sources.open_source(str(sentences_file)), **settings, teacher=taught)
        # Two batches of 8 rows draw from the first 8 + 16.
        assert 2 <= len(list(feed)) < 7

    def test_epochs_differ(self, sentences_file):
        batches = self.batches(sentences_file, 6)
        assert batches[:3] != batches[3:]

    def test_the_readers_own_error_is_kept(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("a,b\n" + "x,y\n" * 40 + "only one\n", "utf-8")
        feed = Feed(sources.open_source(str(path)), batch_size=8, seed=0, shuffle_buffer=2)
        batches = token_batches(feed, tiny_tokenizer(), max_length=8)
        with pytest.raises(tf.errors.OpError):
            list(batches)
        assert isinstance(feed.error, UserError)
        assert "rows.csv:42" in str(feed.error)

    def test_bad_rows_are_left_out_when_asked(self, tmp_path):
        path = tmp_path / "rows.csv"
        path.write_text("a,b\nx,y\nonly one\nu,v\n", "utf-8")
        batch = self.batches(path, 1, batch_size=2, skip_bad_rows=True)[0]
        assert sorted(batch) == [[b"u", b"v"], [b"x", b"y"]]


def test_batches_of_token_ids(triplets_file):
    feed = Feed(sources.open_source(str(triplets_file)), batch_size=4, seed=0)
    batches = token_batches(feed, tiny_tokenizer(), max_length=10)
    # Who ends with them would wait for the thread that tunes: half a minute after a run of 40 steps.
    assert batches.options().autotune.enabled is False
    batch = next(iter(batches))
    texts = next(iter(Feed(sources.open_source(str(triplets_file)), batch_size=4, seed=0)))
    assert batch["token_ids"].shape == batch["padding_mask"].shape == (4, 3, 10)
    cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
    for i in range(4):
        for view in range(3):
            words = texts[i, view].decode().split()[:8]
            ids = [cls, *(VOCABULARY.index(w) for w in words), sep]
            assert batch["token_ids"][i, view].numpy().tolist() == ids + [0] * (10 - len(ids))
            assert batch["padding_mask"][i, view].numpy().sum() == len(ids)
    flat = texts.reshape(-1)
    ids = batch["text_ids"].numpy().reshape(-1)
    for i in range(12):
        assert [(a == flat[i]) for a in flat] == [(a == ids[i]) for a in ids]


@pytest.mark.parametrize(
    ("header", "cells", "dtype", "targets"),
    [("text1,text2,score", "a,b,{}", tf.float32, [0.5, 1, 2, 3]), ("text,label", "{} a,x{}", tf.int64, [0, 1])],
)
def test_targets_travel_with_their_rows(tmp_path, header, cells, dtype, targets):
    path = tmp_path / "rows.csv"
    values = targets if dtype == tf.float32 else ["1", "2", "3", "4"]
    rows = [cells.format(value, int(value) % 2 if dtype == tf.int64 else "") for value in values]
    path.write_text(header + "\n" + "".join(row + "\n" for row in rows))
    feed = Feed(sources.open_source(str(path)), batch_size=4, seed=0)
    (batch,) = token_batches(feed, tiny_tokenizer(), max_length=8).take(1)
    assert batch["token_ids"].shape == (4, 2, 8)
    assert (batch["targets"].shape, batch["targets"].dtype) == ((4,), dtype)
    assert set(batch["targets"].numpy().tolist()) == set(targets)


class TestPrompts:
    @staticmethod
    def words(rows, prompts, max_length=12):
        """The tokens of each view as text, and the views' ids."""
        texts = tf.data.Dataset.from_tensors(tf.constant(rows))
        (batch,) = tokenized(texts, tiny_tokenizer(), max_length=max_length, prompts=prompts)
        shown = [[" ".join(VOCABULARY[i] for i in view if i > 4) for view in row] for row in batch["token_ids"].numpy()]
        return shown, batch["text_ids"].numpy()

    def test_the_query_prompt_is_before_the_first_text_of_a_row_and_the_passage_prompt_before_the_others(self):
        rows = [["dog", "cat", "bird"], ["cat", "dog", "boat"]]
        shown, ids = self.words(rows, {"query": "a man ", "passage": "the "})
        assert shown == [["a man dog", "the cat", "the bird"], ["a man cat", "the dog", "the boat"]]
        # A text is the same text on either side.
        assert (ids[0, 0], ids[0, 1]) == (ids[1, 1], ids[1, 0])

    def test_a_single_text_comes_with_either_where_they_differ(self):
        for prompts, expected in (
            ({"query": "a ", "passage": "the "}, [["a dog", "the dog"]]),
            ({"query": "a ", "passage": ""}, [["a dog", "dog"]]),
            ({"query": "a ", "passage": "a "}, [["a dog"]]),
            ({}, [["dog"]]),
        ):
            shown, ids = self.words([["dog"]], prompts)
            assert shown == expected
            assert len(set(ids[0])) == 1

    def test_so_do_its_teachers_vectors(self):
        texts = tf.data.Dataset.from_tensors((tf.constant([["dog"]]), {"teacher": tf.ones([1, 1, 3])}))
        (batch,) = tokenized(texts, tiny_tokenizer(), max_length=12, prompts={"query": "a ", "passage": ""})
        assert batch["token_ids"].shape[:2] == batch["teacher"].shape[:2] == (1, 2)

    def test_one_that_leaves_no_room_for_a_text_is_refused(self):
        prompts = {"query": "a ", "passage": "a man and the "}
        assert self.words([["dog", "cat"]], prompts, max_length=7)[0] == [["a dog", "a man and the cat"]]
        with pytest.raises(UserError, match="`passage_prompt` 'a man and the ': leaves no room .*`max_length` 6"):
            self.words([["dog", "cat"]], prompts, max_length=6)


def test_tokens_do_not_depend_on_how_many_threads_made_them(sentences_file):
    def tokens():
        feed = Feed(sources.open_source(str(sentences_file)), batch_size=8, seed=0)
        batches = token_batches(feed, tiny_tokenizer(), max_length=12)
        return np.concatenate([b["token_ids"] for b in batches.take(30)])

    np.testing.assert_array_equal(tokens(), tokens())
