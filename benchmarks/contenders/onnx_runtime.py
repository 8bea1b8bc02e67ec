"""ONNX Runtime: encoder, pooling and normalisation as one graph, fused by its own optimizer for transformers."""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from benchmarks.contenders import common
from benchmarks.workers import Turns

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Encoder:
    """Texts to unit vectors with Hugging Face's tokenizer and an exported graph."""

    def __init__(self, settings: dict[str, Any]):
        self._tokenizer = Tokenizer.from_file(str(Path(settings["model"]) / "tokenizer.json"))
        self._tokenizer.enable_truncation(settings["max_length"])
        self._tokenizer.enable_padding()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(settings["onnx"], options, providers=["CPUExecutionProvider"])

    def call(self, texts: list[str]) -> np.ndarray:
        """One call of the model."""
        tokens = self._tokenizer.encode_batch(texts)
        columns = ([t.ids for t in tokens], [t.attention_mask for t in tokens], [t.type_ids for t in tokens])
        feed = {name: np.array(column, "int64") for name, column in zip(_INPUTS, columns, strict=True)}
        return self._session.run(None, feed)[0]

    def encode(self, texts: list[str], batch_size: int) -> np.ndarray:
        """Any number of texts; texts of like length go together."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        vectors = np.concatenate([self.call([texts[i] for i in batch]) for batch in batches])
        return vectors[np.argsort(order)]


def encode(turns: Turns, settings: dict[str, Any]) -> None:
    """Throughput in sorted batches, and single calls."""
    encoder = Encoder(settings)
    turns.serve(common.encoding(lambda texts: encoder.encode(texts, settings["batch_size"]), encoder.call))


def export(model_directory: str, to: str) -> None:
    """Writes the graph and fuses it: one operation each for attention, GELU with bias, and addition with LayerNorm."""
    import torch
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel, AutoTokenizer

    class Pooled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            # The optimizer knows this spelling of attention; it puts its own fused one in its place.
            self.bert = AutoModel.from_pretrained(
                model_directory, attn_implementation="eager", add_pooling_layer=False
            ).eval()

        def forward(self, input_ids, attention_mask, token_type_ids):
            hidden = self.bert(input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
            weights = attention_mask.unsqueeze(-1).float()
            return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1))

    model = Pooled()
    example = AutoTokenizer.from_pretrained(model_directory)(["a text", "another"], padding=True, return_tensors="pt")
    with torch.no_grad():
        torch.onnx.export(
            model,
            tuple(example[name] for name in _INPUTS),
            to,
            input_names=list(_INPUTS),
            output_names=["embedding"],
            dynamic_axes={name: {0: "n", 1: "length"} for name in _INPUTS} | {"embedding": {0: "n"}},
            opset_version=17,
            # The newer exporter spells attention in a way that the optimizer does not fuse.
            dynamo=False,
        )
    config = model.bert.config
    fused = optimizer.optimize_model(
        to, "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=1, use_gpu=False
    )
    attentions = fused.get_fused_operator_statistics()["Attention"]
    if attentions != config.num_hidden_layers:
        raise RuntimeError(f"ONNX Runtime fused {attentions} of {config.num_hidden_layers} attention layers")
    fused.save_model_to_file(to)


if __name__ == "__main__":
    export(*sys.argv[1:])
