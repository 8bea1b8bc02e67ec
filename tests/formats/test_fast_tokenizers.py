# ruff: noqa: E501 (escapes)
"""The tokenizers of `tokenizer.json` beside those of the graph: the same ids for texts of all kinds."""

import functools
import io
import json
import random
import unicodedata

import keras_hub
import pytest
import sentencepiece
import tensorflow as tf
import tokenizers

from simcse_tf.data.bpe import byte_characters
from simcse_tf.data.tokenization import tokenize
from simcse_tf.errors import UserError
from simcse_tf.formats.fast_tokenizers import bytes_read, fast_tokenizer
from simcse_tf.formats.presets import locate

MAX_LENGTH = 64
SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Un caf\u00e9 cr\u00e8me, s\u2019il vous pla\u00eet\u00a0!",
    "Der Fluss flie\u00dft durch K\u00f6ln; \u201eSch\u00f6n!\u201c",
    "\u0395\u03af\u03bd\u03b1\u03b9 \u03bf \u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2 \u039f\u0394\u039f\u03a3.",
    "\u041c\u043e\u0441\u043a\u0432\u0430 \u2014 \u0433\u043e\u0440\u043e\u0434, \u0439\u043e\u0433\u0443\u0440\u0442 \u0451\u043b\u043a\u0430.",
    "\u4eca\u65e5\u306f\u3044\u3044\u5929\u6c17\u3067\u3059\u306d\u3002\u6771\u4eac\u30bf\u30ef\u30fc\u3078\u884c\u304f\u3002",
    "\u4eca\u5929\u5929\u6c14\u5f88\u597d\uff0c\u6211\u4eec\u53bb\u516c\u56ed\u3002",
    "\uc624\ub298 \ub0a0\uc528\uac00 \uc815\ub9d0 \uc88b\ub124\uc694.",
    "\u05e9\u05c1\u05b8\u05dc\u05d5\u05b9\u05dd \u05d9\u05dc\u05d3 \u05e7\u05d5\u05e8\u05d0.",
    "\u0627\u0644\u0648\u0644\u062f \u064a\u0642\u0631\u0623 \u0643\u062a\u0627\u0628\u064b\u0627 \u0645\u064f\u062d\u064e\u0645\u0651\u064e\u062f\u060c",
    "\u092f\u0939 \u090f\u0915 \u0915\u093f\u0924\u093e\u092c \u0939\u0948\u0964 \u0958",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e04\u0e23\u0e31\u0e1a \u0e1c\u0e21\u0e0a\u0e37\u0e48\u0e2d\u0e2a\u0e21\u0e0a\u0e32\u0e22",
    "\u0130stanbul'da \u0131l\u0131k bir g\u00fcn, I\u011fd\u0131r.",
    "T\u00f4i y\u00eau ti\u1ebfng Vi\u1ec7t, Vie\u0323\u0302t Nam.",
    "\u10e1\u10d0\u10e5\u10d0\u10e0\u10d7\u10d5\u10d4\u10da\u10dd \u0540\u0561\u0575\u0561\u057d\u057f\u0561\u0576 \u0587",
]
PIECES = [
    # Special tokens, and how vocabularies spell words.
    *(
        "[SEP]",
        "[CLS]",
        "[MASK]",
        "[UNK]",
        "<s>",
        "</s>",
        "<mask>",
        "<unk>",
        "<pad>",
        "##ing",
        "##",
        "\u2581the",
        "\u0120the",
    ),
    # Blanks, controls, what is not seen.
    *(
        " ",
        "  ",
        "\n",
        "\t",
        "\r\n",
        "\x00",
        "\x01",
        "\x0b\x0c",
        "\x85",
        "\x9f",
        "\u00a0",
        "\u2028",
        "\u202f",
        "\u3000",
    ),
    *("\u200b", "\u200d", "\u00ad", "\ufeff", "\ufffd", "\u115f", "\u3164", "\u034f", "\U000e0041", "\U0010ffff"),
    # Case and compatibility.
    *(
        "STRA\u1e9eE",
        "\u03a3",
        "\u03a3\u03c2",
        "\ufb01re \ufb03",
        "\u2026",
        "\u203c",
        "\u00bd",
        "x\u00b2",
        "\u2122",
        "\u2116 5",
    ),
    *(
        "\u2460\u2474",
        "\u00a8",
        "\u2f00",
        "\u337f",
        "\ufdfa",
        "\u01c5",
        "\U0001d4d0\U0001d6d3",
        "\uff21\uff1f",
    ),
    # Marks.
    *(
        "e\u0301",
        "a\u0301\u0323\u0302",
        " \u0301",
        "=\u0338",
        "\u2260",
        "\u304b\u3099",
        "\uff76\uff9e",
        "\u1112\u1161\u11ab",
    ),
    # Emoji, private use, unassigned.
    *(
        "\U0001f468\u200d\U0001f469\u200d\U0001f467",
        "\U0001f44d\U0001f3fd",
        "\u2764\ufe0f",
        "\ue000",
        "\U000f0000",
        "\u0378",
    ),
    *("it's", "they're", " '", "(a)", "3.14", "1,000", "a1b2", "http://x.org/?q=1&b", "\u096c", "dog ", "the "),
]
BLOCKS = [
    (0x20, 0x7E),
    (0xA0, 0x2FF),
    (0x370, 0x52F),
    (0x531, 0x6FF),
    (0x900, 0x10FF),
    (0x1100, 0x11FF),
    (0x13A0, 0x13FF),
]
BLOCKS += [(0x1E00, 0x1FFF), (0x2000, 0x22FF), (0x2400, 0x24FF), (0x2E80, 0x33FF), (0x4E00, 0x9FFF), (0xA640, 0xA7F0)]
BLOCKS += [(0xAB30, 0xABBF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFDFF), (0xFE00, 0xFFFF), (0x10330, 0x1049F)]
BLOCKS += [
    (0x1D400, 0x1D7FF),
    (0x1F100, 0x1F169),
    (0x1F300, 0x1FAFF),
    (0x20000, 0x2FFFF),
    (0xE0000, 0xE01FF),
    (0, 0x9F),
]
# Code points that the library does not know yet (see the module): Unicode 14 and later.
NEWER = {*range(0x1CCD6, 0x1CCFA), *range(0x1E030, 0x1E069), *range(0x10780, 0x107BB), *range(0x16120, 0x16130)}


def random_text(rng: random.Random) -> str:
    kind = rng.randrange(6)
    if kind == 0:
        return " ".join(rng.choices(SENTENCES, k=rng.randint(1, 3)))
    if kind == 1:
        return "".join(rng.choices(PIECES, k=rng.randint(1, 20)))
    if kind == 2:
        characters = list(rng.choice(SENTENCES))
        for _ in range(rng.randint(1, 5)):
            characters.insert(rng.randrange(len(characters) + 1), rng.choice(PIECES))
        return "".join(characters)
    if kind == 3:
        letters = [c for c in rng.choice(SENTENCES) if c != " " and not unicodedata.combining(c)]
        return " ".join("".join(rng.choices(letters, k=rng.choice([3, 8, 30, 60, 120]))) for _ in range(3))
    blocks = [rng.choice(BLOCKS)] if kind == 4 else [*BLOCKS, (0, 0x10FFFF)]
    points = (rng.randint(*rng.choice(blocks)) for _ in range(rng.randint(1, 30)))
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000 and p not in NEWER)


@functools.cache
def texts(count: int) -> list[str]:
    rng = random.Random(0)
    words = [
        letters * n
        for letters in ("ab", "\u00e9a", "\u044f\u0430", "\u3042\u3044", "\U00010348")
        for n in (25, 26, 33, 34, 50, 51, 100, 101, 513)
    ]
    endless = ["ab", "the dog ", " ", "\u05d0\u05d1", "\U0001f600", "\x00", "\u0301"]
    fixed = ["", *SENTENCES, *(s.upper() for s in SENTENCES), *PIECES, *words]
    fixed += [piece * (100_000 // len(piece)) for piece in endless]
    return fixed + [random_text(rng) for _ in range(count - len(fixed))]


def word_pieces(**options):
    characters = sorted({c for s in SENTENCES for c in s + s.lower()} - {" "})
    words = [
        "the",
        "dog",
        "fox",
        "cafe",
        "caf\u00e9",
        "stra",
        "##sse",
        "##ing",
        "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c3",
        "...",
        "tm",
        "##.",
    ]
    marks = [*"()[]<>'/:?#&=1234567890\u2044\u03b9\uac00\ud55c\u304c\u2026", *(chr(c) for c in range(0x1100, 0x1200))]
    pieces = [*words, *characters, *marks, *(f"##{c}" for c in [*characters, *marks])]
    vocabulary = list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces]))
    return keras_hub.models.BertTokenizer(vocabulary, **options)


def byte_pairs(**options):
    fast = tokenizers.Tokenizer(tokenizers.models.BPE())
    fast.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=1500, special_tokens=special, initial_alphabet=byte_characters(), show_progress=False
    )
    rng = random.Random(1)
    fast.train_from_iterator([random_text(rng) for _ in range(1000)], trainer)
    model = json.loads(fast.to_str())["model"]
    return keras_hub.models.RobertaTokenizer(model["vocab"], [" ".join(rule) for rule in model["merges"]], **options)


def sentence_pieces(**options):
    model = io.BytesIO()
    rng = random.Random(1)
    pieces = [piece for piece in PIECES if not set(piece) & set("\x00\n")]
    sentences = ["".join(rng.choices(pieces, k=12)) for _ in range(2000)]
    settings = {"vocab_size": 1000, "hard_vocab_limit": False, "unk_id": 0, "bos_id": 1, "eos_id": 2, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 5 + sentences), model_writer=model, **settings | options
    )
    return keras_hub.models.XLMRobertaTokenizer(model.getvalue())


FAMILIES = {
    "uncased": lambda: word_pieces(lowercase=True, strip_accents=True),
    "cased": lambda: word_pieces(lowercase=False, strip_accents=False),
    "uncased with accents": lambda: word_pieces(lowercase=True, strip_accents=False),
    "byte pairs": byte_pairs,
    "sentence pieces": sentence_pieces,
}


@pytest.fixture(scope="module", params=FAMILIES)
def tokenizer(request):
    return FAMILIES[request.param]()


def ids_of_the_graph(tokenizer, texts):
    signature = [tf.TensorSpec([None], tf.string)]
    run = tf.function(lambda text: tokenize(tokenizer, text, max_length=MAX_LENGTH), input_signature=signature)
    ids = []
    for i in range(0, len(texts), 500):
        batch = run(tf.constant([text.encode() for text in texts[i : i + 500]]))
        rows = zip(batch["token_ids"].numpy(), batch["padding_mask"].numpy(), strict=True)
        ids += [row[: mask.sum()].tolist() for row, mask in rows]
    return ids


def differences(tokenizer, texts):
    # As it is read back from tokenizer.json.
    fast = tokenizers.Tokenizer.from_str(fast_tokenizer(tokenizer, max_length=MAX_LENGTH).to_str())
    pairs = zip(texts, fast.encode_batch_fast(texts), ids_of_the_graph(tokenizer, texts), strict=True)
    return [(text[:80], a.ids[:20], b[:20]) for text, a, b in pairs if a.ids != b]


def most_differences(tokenizer, count):
    """What the module says of newer code points, and of SentencePiece's ties and marks; these texts look for them."""
    return count * (0.005 if hasattr(tokenizer, "proto") else 0.0003)


def test_ids_are_those_of_the_graph(tokenizer):
    found = differences(tokenizer, texts(3000))
    assert len(found) <= most_differences(tokenizer, 3000), found


@pytest.mark.slow
def test_20_000_texts_have_the_ids_of_the_graph(tokenizer):
    found = differences(tokenizer, texts(20_000))
    assert len(found) <= most_differences(tokenizer, 20_000), found


@pytest.mark.slow
def test_20_000_texts_have_the_ids_of_the_graph_in_minilms_vocabulary():
    directory = locate("minilm").directory
    assert directory is not None
    tokenizer = keras_hub.models.BertTokenizer(str(directory / "vocab.txt"), lowercase=True, strip_accents=True)
    found = differences(tokenizer, texts(20_000))
    assert len(found) <= most_differences(tokenizer, 20_000), found


def test_a_text_of_blanks_has_the_ids_of_the_graph_once_it_is_cut():
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", *byte_characters()])}
    blanks = ["\u0120" * 2**i for i in range(1, 10)]
    vocabulary |= {blank: len(vocabulary) + i for i, blank in enumerate(blanks)}
    merges = [f"{blank[: len(blank) // 2]} {blank[: len(blank) // 2]}" for blank in blanks]
    tokenizer = keras_hub.models.RobertaTokenizer(vocabulary, merges)
    text = " " * 5000 + "dog"
    assert differences(tokenizer, [text])
    most = bytes_read(tokenizer, max_length=MAX_LENGTH)
    fast = fast_tokenizer(tokenizer, max_length=MAX_LENGTH)
    assert [fast.encode(text[:most]).ids] == ids_of_the_graph(tokenizer, [text])


def test_a_blank_before_the_text_has_the_ids_of_the_graph():
    assert (
        differences(byte_pairs(add_prefix_space=True), [*SENTENCES, *(piece for piece in PIECES if piece != "\x00")])
        == []
    )


def test_bytes_without_a_token_are_unknown():
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a", "b", "ab"])}
    for unknown in ("<unk>", "<other>"):
        names = {token.replace("<unk>", unknown): i for token, i in vocabulary.items()}
        assert differences(keras_hub.models.RobertaTokenizer(names, ["a b"]), ["abzab", "\u00e9 a", "<unk>"]) == []


@pytest.mark.parametrize("options", [{"normalization_rule_name": "nfkc_cf"}, {"model_type": "bpe"}])
def test_a_sentencepiece_model_of_another_kind_is_refused(options):
    with pytest.raises(UserError, match="SentencePiece model.*nmt_nfkc.*SavedModel"):
        fast_tokenizer(sentence_pieces(**options), max_length=MAX_LENGTH)


def test_special_tokens_stand_for_themselves_where_that_is_asked_for():
    tokenizer = word_pieces(lowercase=True, strip_accents=True)
    plain = fast_tokenizer(tokenizer, max_length=MAX_LENGTH).encode("a [SEP] dog").ids
    special = fast_tokenizer(tokenizer, max_length=MAX_LENGTH, special_tokens=["[SEP]"]).encode("a [SEP] dog").ids
    assert plain.count(tokenizer.sep_token_id) == 1
    assert special.count(tokenizer.sep_token_id) == 2
