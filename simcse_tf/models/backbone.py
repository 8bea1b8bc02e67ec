"""The layers of a keras-hub backbone of the BERT family, by what they do.

This is the only file that reads keras-hub's attributes below the backbone, private ones among them. Each is probed: if
a release of keras-hub renames or adds one, `parts` says so, instead of an AttributeError or a wrong number later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple


class UnknownBackboneError(ValueError):
    """A backbone is not built as `parts` expects; the message names the difference."""


class TransformerLayer(NamedTuple):
    """The dense layers (`kernel`, `bias`) and norms (`gamma`, `beta`, `epsilon`) of a transformer layer."""

    query: Any
    key: Any
    value: Any
    attention_output: Any
    attention_norm: Any
    # Its `activation` is the layer's.
    intermediate: Any
    output: Any
    output_norm: Any


class Parts(NamedTuple):
    """The layers of a backbone, from its inputs to its output."""

    # Their tables: `words.embeddings`, `positions.position_embeddings`, `segments.embeddings`.
    words: Any
    positions: Any
    segments: Any | None
    norm: Any
    # ELECTRA's dense layer from the width of its embeddings to that of its layers.
    projection: Any | None
    layers: tuple[TransformerLayer, ...]
    # The rate of all dropout layers.
    dropout: float


def parts(backbone: Any) -> Parts:
    """Finds the layers of a backbone.

    Args:
        backbone: A keras-hub backbone, built.

    Raises:
        UnknownBackboneError: An attribute is missing, or the backbone has weights in no layer that was found.
    """
    # RoBERTa, XLM-RoBERTa and DistilBERT keep the two tables in a layer of their own.
    tables = backbone if hasattr(backbone, "position_embedding") else _find(backbone, "embeddings")
    found = Parts(
        words=_find(tables, "token_embedding", "embeddings"),
        positions=_find(tables, "position_embedding", "position_embeddings"),
        segments=_find(backbone, "segment_embedding", "embeddings") if hasattr(backbone, "segment_embedding") else None,
        norm=_norm(backbone, "embeddings_layer_norm"),
        projection=_dense(backbone, "embeddings_projection") if hasattr(backbone, "embeddings_projection") else None,
        layers=tuple(_layer(layer) for layer in _find(backbone, "transformer_layers")),
        dropout=_find(backbone, "dropout"),
    )
    # A segment table under another name, a gate or a norm more: their weights would be left out in silence. BERT's
    # pooler belongs to next-sentence prediction; it is not part of the encoder.
    tables_and_norms = (found.words, found.positions, found.segments, found.norm, found.projection)
    layers = (*tables_and_norms, getattr(backbone, "pooled_dense", None), *(x for layer in found.layers for x in layer))
    known = {id(weight) for layer in layers if layer is not None for weight in layer.weights}
    for weight in backbone.weights:
        if id(weight) not in known:
            raise UnknownBackboneError(f"{weight.path} is a weight of no layer that a {type(backbone).__name__} has")
    return found


def with_layers(backbone: Any, places: Sequence[int]) -> Any:
    """A copy of a backbone that has some of its transformer layers.

    Args:
        backbone: A keras-hub backbone.
        places: Of the layers, counted from 0.
    """
    smaller = type(backbone).from_config(backbone.get_config() | {"num_layers": len(places)})
    pairs = list(zip(smaller.transformer_layers, (backbone.transformer_layers[i] for i in places), strict=True))
    others = [layer for layer in smaller.layers if layer.weights and layer not in smaller.transformer_layers]
    for layer, origin in pairs + [(layer, backbone.get_layer(layer.name)) for layer in others]:
        layer.set_weights(origin.get_weights())
    return smaller


def _layer(layer: Any) -> TransformerLayer:
    attention = _find(layer, "_self_attention_layer")
    intermediate = _dense(layer, "_feedforward_intermediate_dense")
    _find(intermediate, "activation")
    return TransformerLayer(
        query=_dense(attention, "_query_dense"),
        key=_dense(attention, "_key_dense"),
        value=_dense(attention, "_value_dense"),
        attention_output=_dense(attention, "_output_dense"),
        attention_norm=_norm(layer, "_self_attention_layer_norm"),
        intermediate=intermediate,
        output=_dense(layer, "_feedforward_output_dense"),
        output_norm=_norm(layer, "_feedforward_layer_norm"),
    )


def _dense(owner: Any, name: str) -> Any:
    return _find(owner, name, "kernel", "bias")


def _norm(owner: Any, name: str) -> Any:
    return _find(owner, name, "gamma", "beta", "epsilon")


def _find(owner: Any, name: str, *attributes: str) -> Any:
    """An attribute that has attributes itself, none of them None."""
    found = getattr(owner, name, None)
    if found is None:
        raise UnknownBackboneError(f"{owner.name} has no {name}")
    for attribute in attributes:
        _find(found, attribute)
    return found
