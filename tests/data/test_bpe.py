import json
import random
import time

import numpy as np
import pytest
import tensorflow as tf
import tokenizers

from simcse_tf.data.bpe import byte_pairs
from simcse_tf.errors import UserError
from tests.conftest import SENTENCES

ODD = [
    "",
    " ",
    "   three blanks",
    "trailing   ",
    "line\nbreaks\r\n\n and\ttabs",
    "it's we're they'll I'd 'quoted'",
    "\u00a0no-break\u3000ideographic\u2028line\x85next\x0bvertical\x1funit",
    "caf\u00e9 na\u00efve e\u0301 \u65e5\u672c\u8a9e\u306e\u6587",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \u00bd \u2167 \U0001f3fd",
    "\u096c \u0134A \ufffd \U0010fffe",
    "3.14 1,000 x2 a1b2",
    "aaaa aaaaa abababab",
]


@pytest.fixture(scope="module")
def reference():
    """Hugging Face's byte-level BPE, trained on the spot."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES + ODD * 3, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenize(reference):
    model = json.loads(reference.to_str())["model"]
    merges = ["#version: 0.2", *(" ".join(rule) for rule in model["merges"])]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(text):
        return byte_pairs(text, model["vocab"], merges, most=400, unknown=3)

    return lambda texts: run(tf.constant(texts, tf.string, shape=[len(texts)])).to_list()


def test_tokens_are_those_of_hugging_face(reference, tokenize):
    texts = SENTENCES + ODD
    assert tokenize(texts) == [reference.encode(t).ids for t in texts]


def test_random_strings_have_the_tokens_of_hugging_face(reference, tokenize):
    rng = random.Random(0)
    pieces = ["".join(rng.sample(text, min(len(text), 3))) for text in ODD + SENTENCES] + ["  ", "\n\n", "'s", " '"]
    texts = ["".join(rng.choices(pieces, k=rng.randint(0, 30))) for _ in range(500)]
    for text, tokens in zip(texts, tokenize(texts), strict=True):
        assert tokens[:400] == reference.encode(text).ids[:400], repr(text)


def test_no_text_and_no_tokens(tokenize):
    assert tokenize([]) == []
    assert tokenize(["", ""]) == [[], []]


@pytest.mark.parametrize("length", [2, 3, 4, 5, 100, 513])
def test_a_word_without_end_is_merged_like_any_other(reference, tokenize, length):
    rng = random.Random(length)
    texts = ["a" * length, "ab" * length, "".join(rng.choices("abcdefgh", k=length))]
    assert [t[:400] for t in tokenize(texts)] == [reference.encode(t).ids[:400] for t in texts]


def test_a_long_word_takes_no_longer_than_its_length_asks_for(tokenize):
    rng = random.Random(0)
    seconds = []
    for length in (1000, 8000):
        text = "".join(rng.choices("abcdefghijklmnop", k=length))
        began = time.monotonic()
        tokenize([text])
        seconds.append(time.monotonic() - began)
    # Eight times the work, at most: 64 times would be a quadratic algorithm's.
    assert seconds[1] < max(25 * seconds[0], 2)


def test_a_byte_without_a_token_is_unknown():
    run = tf.function(lambda text: byte_pairs(text, {"a": 0, "b": 1, "ab": 2, "<unk>": 3}, ["a b"], most=10, unknown=3))
    assert run(tf.constant(["abzab", "\u00e9"])).to_list() == [[2, 3, 2], [3, 3]]


def test_a_rule_about_tokens_that_do_not_exist_is_named():
    with pytest.raises(UserError, match="the rule 'a c', but the vocabulary has no token 'ac'"):
        byte_pairs(tf.constant(["a"]), {"a": 0, "b": 1}, ["a c"], most=10, unknown=0)


def test_only_the_first_words_are_read(tokenize):
    (tokens,) = tokenize(["a dog ." * 1000])
    assert 400 <= len(tokens) < 1300
    assert np.max(tokens) < 700
