"""ONNX Runtime: encoder, pooling and normalisation as one graph, fused by its own optimizer for transformers."""

# The peers are installed in the benchmark's environment alone.
# pyright: reportMissingImports=false

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.contenders import graph
from benchmarks.workers import Turns


class Encoder(graph.Encoder):
    """Texts to unit vectors."""

    def __init__(self, settings: dict[str, Any]):
        super().__init__(settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(settings["onnx"], options, providers=["CPUExecutionProvider"])

    def run(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """As the base class says."""
        return self._session.run(None, feed)[0]


def encode(turns: Turns, settings: dict[str, Any]) -> None:
    """Throughput in sorted batches, and single calls."""
    graph.serve(turns, settings, Encoder(settings))


def export(model_directory: str, unfused: str, to: str) -> None:
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
            tuple(example[name] for name in graph.INPUTS),
            unfused,
            input_names=list(graph.INPUTS),
            output_names=["embedding"],
            dynamic_axes={name: {0: "n", 1: "length"} for name in graph.INPUTS} | {"embedding": {0: "n"}},
            opset_version=17,
            # The newer exporter spells attention in a way that the optimizer does not fuse.
            dynamo=False,
        )
    config = model.bert.config
    fused = optimizer.optimize_model(
        unfused,
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=1,
        use_gpu=False,
    )
    attentions = fused.get_fused_operator_statistics()["Attention"]
    if attentions != config.num_hidden_layers:
        raise RuntimeError(f"ONNX Runtime fused {attentions} of {config.num_hidden_layers} attention layers")
    fused.save_model_to_file(to)


def quantize(fused: str, to: str) -> None:
    """Stores the weights in 8 bits, with a scale for each row; activations become 8 bits at run time."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        fused,
        to,
        weight_type=QuantType.QInt8,
        per_channel=True,
        # The graph does not say what type the fused operations return.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


if __name__ == "__main__":
    {"export": export, "quantize": quantize}[sys.argv[1]](*sys.argv[2:])
