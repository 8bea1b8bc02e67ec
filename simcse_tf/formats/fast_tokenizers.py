"""Temporary: replaced by the branch of the tokenizers."""

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors


def fast_tokenizer(ours, *, max_length):
    words = models.WordPiece({w: i for i, w in enumerate(ours.vocabulary)}, unk_token="[UNK]")
    fast = tokenizers.Tokenizer(words)
    fast.normalizer = normalizers.BertNormalizer(lowercase=ours.lowercase, strip_accents=ours.strip_accents)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.BertProcessing(("[SEP]", ours.sep_token_id), ("[CLS]", ours.cls_token_id))
    fast.enable_truncation(max_length)
    return fast
