import keras_hub
import pytest
import tensorflow as tf
import tokenizers

from simcse_tf.data.tokenization import tokenize
from tests.conftest import SENTENCES, VOCABULARY


@pytest.fixture(scope="module")
def word_pieces():
    tokenizer = keras_hub.models.BertTokenizer(VOCABULARY, lowercase=True, strip_accents=True)
    run = tf.function(lambda text: tokenize(tokenizer, text, max_length=20))

    def ids(texts):
        batch = run(tf.constant(texts, tf.string, shape=[len(texts)]))
        rows = zip(batch["token_ids"].numpy(), batch["padding_mask"].numpy(), strict=True)
        return [row[: mask.sum()].tolist() for row, mask in rows]

    return ids


def test_word_pieces_are_those_of_hugging_face(word_pieces):
    reference = tokenizers.Tokenizer(
        tokenizers.models.WordPiece({word: i for i, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    reference.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    reference.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    texts = [
        *SENTENCES[:10],
        "two\u00a0dogs",
        "a\u3000cat\u2009sings",
        "a do\u200bg\u00ad runs\x07",
        "the\ufffd boat",
        "a\tb\r\nc",
        "D\u00d3G, dog!",
    ]
    cls, sep = VOCABULARY.index("[CLS]"), VOCABULARY.index("[SEP]")
    assert word_pieces(texts) == [[cls, *reference.encode(text).ids[:18], sep] for text in texts]


def test_no_text_has_two_columns(word_pieces):
    assert word_pieces([]) == []


def test_special_tokens_in_a_text_are_text(word_pieces):
    (ids,) = word_pieces(["a [SEP] dog"])
    assert ids.count(VOCABULARY.index("[SEP]")) == 1
