"""Encoders of published sizes with random weights, as Hugging Face directories; nothing is downloaded.

    python -m benchmarks.models NAME TO TEXTS

Time and memory depend on how many weights there are, not on what they are. The vocabulary is as large as the published
one; XLM-RoBERTa's tokenizer is trained on the benchmark's own texts and uses a part of it.
"""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import sentencepiece
import torch
from transformers import BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

from simcse_tf.files import whole_directory
from simcse_tf.formats import presets


def bert_base(directory: Path, texts: Path) -> None:
    """BERT-base, uncased: 109 million weights. all-MiniLM-L6-v2 has the same vocabulary."""
    del texts
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(directory)
    minilm = presets.locate("minilm").directory
    assert minilm is not None
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(minilm / name, directory / name)


def xlm_roberta_base(directory: Path, texts: Path) -> None:
    """XLM-RoBERTa-base: 278 million weights, of which 192 million are the vocabulary's."""
    config = XLMRobertaConfig(
        vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1
    )
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(directory)
    sentencepiece.SentencePieceTrainer.train(
        input=str(texts),
        model_prefix=str(directory / "sentencepiece.bpe"),
        vocab_size=16000,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    # transformers would convert the file by itself, but with another protobuf than TensorFlow's.
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / "sentencepiece.bpe.model"))
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    learned = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(3, pieces.get_piece_size())]
    XLMRobertaTokenizer(vocab=special + learned).save_pretrained(directory)


if __name__ == "__main__":
    name, to, source = sys.argv[1:]
    torch.manual_seed(0)
    with whole_directory(Path(to)) as new:
        {"bert_base": bert_base, "xlm_roberta_base": xlm_roberta_base}[name](new, Path(source))
