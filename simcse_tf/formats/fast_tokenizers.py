"""Tokenizers outside the TensorFlow graph: a `tokenizers.Tokenizer` with the ids of `data.tokenization.tokenize`.

Where there is no TensorFlow (LiteRT, transformers, a browser), texts are tokenized by Hugging Face's `tokenizers` from
a `tokenizer.json`. Its ready-made parts for BERT and XLM-R differ from what tf-text computes, and with that from what
a model was trained on, on two of five odd strings: case folding, Hangul, words of more than 100 bytes, decomposed
accents. What is built here consists of parts that the library in Rust and `@huggingface/tokenizers` in JavaScript
share.

It gives the same ids for all texts but these, counted over every code point between two letters and over 100,000 odd
strings of each kind:

- Code points newer than Unicode 13 (WordPiece: 168 of 1,112,064, SentencePiece: 55): `tokenizers` does not know yet
  that they are marks, punctuation or variants of letters.
- SentencePiece: U+0344, and rare combining marks in an order that is not Unicode's; segmentations that are equally
  likely, as of one letter repeated many times, where the rounding of sums decides.
- Lowercasing WordPiece that keeps accents: an iota subscript before marks of another script.
- Byte-level BPE: see `bytes_read`; with `add_prefix_space`, a text without characters.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from simcse_tf.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer, normalizers

# BERT's Chinese characters, and its punctuation: what ASCII and Unicode call so.
_CHINESE = (
    r"\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}\x{2B820}-\x{2CEAF}"
    r"\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}"
)
_PUNCTUATION = r"!-/:-@\[-`{-~\p{P}"
# Letters, marks and unassigned code points that Unicode folds to nothing; others like them are control characters.
_IGNORABLE = (
    r"\x{34F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2065}\x{3164}\x{FE00}-\x{FE0F}\x{FFA0}"
    r"\x{FFF0}-\x{FFF8}\x{E0000}-\x{E0FFF}"
)
# GPT-2's pattern with `data.bpe`'s blanks.
_BLANK = r"\t-\r \x{85}\p{Z}"
_BYTE_LEVEL_WORD = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+"
    rf"| ?[^{_BLANK}\p{{L}}\p{{N}}]+|[{_BLANK}]+(?![^{_BLANK}])|[{_BLANK}]+"
)
# SentencePiece's rule `nmt_nfkc`: NFKC, and these to nothing and to a blank.
_NMT_REMOVED = r"[\x{00}-\x{08}\x{0B}\x{0E}-\x{1F}\x{7F}\x{8F}\x{9F}]"
_NMT_BLANK = r"[\t\n\x{0C}\r\x{61C}\x{1680}\x{200B}\x{200C}\x{200E}\x{200F}\x{2028}\x{2029}\x{2581}\x{FEFF}\x{FFFD}]"
# Combining marks that Unicode orders before those above a letter: below it or attached to it; and through it. The
# former compose with these letters only.
_LOW_MARKS = r"\x{316}-\x{319}\x{31B}-\x{333}\x{339}-\x{33C}\x{347}-\x{349}\x{34D}\x{34E}\x{353}-\x{356}\x{359}\x{35A}"
_OVERLAYS = r"\x{334}-\x{338}"
_LOW_MARKS_BASES = r"A-Za-z\x{1A0}\x{1A1}\x{1AF}\x{1B0}\x{31B}"
# What has to come out as SentencePiece itself has it, or the model's rules are others.
_SENTENCEPIECE_PROBES = (
    "",
    "  two  blanks\u3000and a\ttab \u2581 ",
    "\ufb01rst \u2460\u00bd \u1112\u1161\u11ab Vie\u0323\u0302t \u05e9\u05c1\u05b8 Stra\u00dfe \u0130I",
    "\x07a\u200bb\u200dc\u00ad \U0001f600",
)


def fast_tokenizer(tokenizer: Any, *, max_length: int, special_tokens: Collection[str] = ()) -> Tokenizer:
    """Builds the tokenizer that is saved as `tokenizer.json`.

    It takes strings: a caller that has bytes decodes them first, with U+FFFD for what is not UTF-8. `[SEP]` and the
    like in a text are text. Long texts lose their end, never [CLS] or [SEP]; in JavaScript, where `truncation` is not
    implemented, that remains to the caller.

    Args:
        tokenizer: A keras-hub tokenizer: WordPiece, byte-level BPE or XLM-R's SentencePiece.
        max_length: Most tokens per text, special tokens included.
        special_tokens: Those that stand for themselves in a text, too, as transformers expects it of all.

    Raises:
        UserError: A SentencePiece model that is not a unigram model with the rules `nmt_nfkc`, as XLM-R's is.
    """
    from simcse_tf.data.tokenization import is_byte_level

    if is_byte_level(tokenizer):
        fast = _byte_level(tokenizer)
    elif hasattr(tokenizer, "proto"):
        fast = _sentencepiece(tokenizer, special_tokens)
    else:
        fast = _wordpiece(tokenizer)
    fast.enable_truncation(max_length)
    fast.add_special_tokens(sorted(token for token in special_tokens if fast.token_to_id(token) is not None))
    return fast


def bytes_read(tokenizer: Any, *, max_length: int) -> int | None:
    """How many bytes of a text are tokenized in the graph, or None for all.

    Byte-level BPE does not read on where no text in a language would still give a token. `tokenizers` cannot count
    bytes: a caller that wants the same ids of pages of rulers or blanks cuts the text itself, before it decodes it.
    """
    from simcse_tf.data.bpe import BYTES_PER_TOKEN
    from simcse_tf.data.tokenization import is_byte_level

    return (max_length - 2) * BYTES_PER_TOKEN if is_byte_level(tokenizer) else None


def _wordpiece(ours: Any) -> Tokenizer:
    """WordPiece as tf-text computes it: it splits words, then folds their case, and counts a word's length in bytes.

    So line breaks are put between words while punctuation is what it was (NFKC makes "..." of U+2026), and words and
    vocabulary are spelt in bytes, as byte-level BPE does it.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    from simcse_tf.data.bpe import byte_characters

    steps: list[Any] = [_replace(r"[\p{Zs}\t\n\r]", "\n"), _replace(r"(?=[^\n])[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]", "")]
    if ours.strip_accents:
        steps += [normalizers.NFD(), _replace(r"\p{Mn}", "")]
    alone = f"[{_PUNCTUATION}{_CHINESE}]"
    # Never before the first character: what is inserted there makes the library panic in the steps that follow.
    steps.append(_replace(rf"(?<={alone})(?=[^\n])|(?<=[^\n])(?={alone})", "\n"))
    if ours.lowercase:
        # Unicode's NFKC case folding.
        steps += [
            normalizers.NFKD(),
            _replace(r"[\x{3A3}\x{3C2}]", "\N{GREEK SMALL LETTER SIGMA}"),
            _replace(r"\x{345}", "\N{GREEK SMALL LETTER IOTA}"),
            normalizers.Lowercase(),
            _replace(r"\x{DF}", "ss"),
            _replace(f"[{_IGNORABLE}]", ""),
            normalizers.NFKC(),
        ]
    spelling = byte_characters()
    vocabulary = {"".join(spelling[b] for b in word.encode()): i for i, word in enumerate(ours.vocabulary)}
    fast = Tokenizer(models.WordPiece(vocabulary, unk_token=ours.oov_token, max_input_chars_per_word=100))
    fast.normalizer = normalizers.Sequence(steps)
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.post_processor = processors.BertProcessing(
        (ours.sep_token, ours.sep_token_id), (ours.cls_token, ours.cls_token_id)
    )
    return fast


def _byte_level(ours: Any) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    merges = [tuple(rule.split(" ")) for rule in ours.merges if not rule.startswith("#version")]
    unknown = "<unk>" if "<unk>" in ours.vocabulary else ours.pad_token
    fast = Tokenizer(models.BPE(dict(ours.vocabulary), merges, unk_token=unknown))
    steps = [_replace(r"\x{00}", ""), _replace(r"\x{10FFFF}", "\N{REPLACEMENT CHARACTER}")]
    if ours.add_prefix_space:
        steps.append(normalizers.Prepend(" "))
    fast.normalizer = normalizers.Sequence(steps)
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # The library's own pattern, in JavaScript, has other blanks.
            pre_tokenizers.Split(Regex(_BYTE_LEVEL_WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.post_processor = processors.RobertaProcessing(
        (ours.end_token, ours.end_token_id), (ours.start_token, ours.start_token_id), add_prefix_space=False
    )
    return fast


def _sentencepiece(ours: Any, special_tokens: Collection[str]) -> Tokenizer:
    """XLM-R's ids: four special tokens, the pieces from the third on, `<mask>`.

    The library's `Precompiled` is not used: in Rust it loses what follows in a cluster of characters and does not
    compose, and in JavaScript it is NFKC whatever the model says.
    """
    import sentencepiece
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    pieces = sentencepiece.SentencePieceProcessor(model_proto=ours.proto)

    def name(token: str) -> str:
        # A unigram model finds all of its tokens in a text, special ones too; a blank never gets that far.
        return token if token in special_tokens else f" {token}"

    vocabulary = [(name(token), 0.0) for token in ours.special_tokens]
    for i in range(3, pieces.get_piece_size()):
        unused = pieces.is_control(i) or pieces.is_unused(i)
        vocabulary.append((f" {i}" if unused else pieces.id_to_piece(i), pieces.get_score(i)))
    vocabulary.append((name("<mask>"), 0.0))
    fast = Tokenizer(models.Unigram(vocabulary, unk_id=ours.unk_token_id))
    fast.normalizer = normalizers.Sequence(
        [
            _replace(_NMT_REMOVED, ""),
            _replace(_NMT_BLANK, " "),
            # SentencePiece composes characters but does not reorder marks: what NFKC would reorder is kept apart.
            _replace(
                rf"(?<=[^{_LOW_MARKS_BASES}])(?=[{_LOW_MARKS}])"
                rf"|(?<=\p{{M}})(?=[{_OVERLAYS}]|(?![\x{{300}}-\x{{36F}}])\p{{M}})",
                "\x01",
            ),
            normalizers.NFKC(),
            _replace(r"\x{01}", ""),
            _replace(" {2,}", " "),
            _replace(r"\A | \z", ""),
        ]
    )
    fast.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    start, end = name(ours.start_token), name(ours.end_token)
    fast.post_processor = processors.BertProcessing((end, ours.end_token_id), (start, ours.start_token_id))
    _check_sentencepiece(ours, fast, pieces)
    return fast


def _check_sentencepiece(ours: Any, fast: Tokenizer, pieces: Any) -> None:
    for text in _SENTENCEPIECE_PROBES:
        theirs = [i + 1 if i else ours.unk_token_id for i in pieces.encode(text)]
        if fast.encode(text, add_special_tokens=False).ids != theirs:
            raise UserError(
                "there is no tokenizer.json for this SentencePiece model: it is not a unigram model with the "
                f"normalization rule nmt_nfkc, as XLM-R's is (they differ on {text!r}). Export a SavedModel, which has "
                "SentencePiece inside."
            )


def _replace(pattern: str, content: str) -> normalizers.Replace:
    from tokenizers import Regex, normalizers

    return normalizers.Replace(Regex(pattern), content)
