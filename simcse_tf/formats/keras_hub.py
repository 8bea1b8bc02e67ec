"""keras-hub's preset directories: backbone, tokenizer, and `task.json` of a text embedder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from simcse_tf.config import EncoderConfig, Pooling
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, read_json, read_json_object, whole_directory
from simcse_tf.formats import card, encoder_json

if TYPE_CHECKING:
    from simcse_tf.models.encoder import Encoder

# How a text embedder pools.
_POOLING: dict[str, Pooling] = {"cls": "cls_before_pooler", "mean": "avg"}
_POOLING_MODES: dict[Pooling, str] = {"cls": "cls", "cls_before_pooler": "cls", "avg": "mean"}
# Said in the card of an encoder whose vectors are cut.
_NO_TEXT_EMBEDDER = [
    "keras-hub's text embedder cannot cut vectors, so this is a preset of backbone and tokenizer. `simcse_tf` reads",
    "what else there is to know from `encoder.json`.",
    "",
]


def is_preset(directory: Path) -> bool:
    """Whether a directory's `config.json` is keras-hub's."""
    about = read_json(file) if (file := directory / "config.json").is_file() else {}
    return isinstance(about, dict) and "registered_name" in about


def config(directory: Path) -> EncoderConfig | None:
    """How a preset directory pools: what `encoder.json` says, else its text embedder; None if it has neither.

    Raises:
        UserError: The directory has no tokenizer, a file of it is damaged, or it pools as no encoder here does.
    """
    if not (directory / "tokenizer.json").is_file():
        raise UserError(f"{directory}: a keras-hub preset without tokenizer.json; save the tokenizer into it as well.")
    return encoder_json.config(directory) or _text_embedder_config(directory)


def dim(directory: Path) -> int | None:
    """How many numbers the vectors of a preset directory have; None if its backbone does not say."""
    found = read_json_object(directory / "config.json").get("config", {}).get("hidden_dim")
    return found if isinstance(found, int) else None


def num_layers(directory: Path) -> int:
    """How many transformer layers the encoder in a preset directory has."""
    return read_json_object(directory / "config.json")["config"]["num_layers"]


def load(preset: str, *, dropout: float, dtype: str) -> tuple[Any, Any]:
    """Loads a preset's backbone and tokenizer.

    Args:
        preset: A directory, or the name of a preset that keras-hub downloads.
        dropout: Rate for all dropout layers.
        dtype: A Keras dtype policy name.

    Returns:
        `(backbone, tokenizer)`.

    Raises:
        UserError: keras-hub cannot load it.
    """
    import keras_hub

    try:
        backbone = keras_hub.models.Backbone.from_preset(preset, dropout=dropout, dtype=dtype)
        return backbone, keras_hub.models.Tokenizer.from_preset(preset)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"preset {preset}: keras-hub cannot load it ({e}).") from e


def save(encoder: Encoder, directory: Path) -> None:
    """Saves backbone and tokenizer, pooling and head as a preset."""
    encoder.backbone.save_to_preset(str(directory))
    encoder.tokenizer.save_to_preset(str(directory))
    encoder_json.write(encoder, directory)


def export(encoder: Encoder, directory: Path, *, source: str = "") -> Path:
    """Writes a preset with a model card, which `keras_hub.models.TextEmbedder.from_preset` loads if keras-hub can.

    keras-hub has a text embedder for BERT and XLM-RoBERTa, which pools by [CLS] or mean, without a head, and gives all
    numbers of a vector. Other encoders become a preset of backbone and tokenizer. Every command here takes either. A
    text embedder tokenises by keras-hub's rules, which do not know Unicode's spaces: a text with such has other tokens
    there.

    Args:
        encoder: The encoder.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.

    Returns:
        The directory.

    Raises:
        UserError: The directory exists.
    """
    check_new(directory)
    with whole_directory(directory) as new:
        if (embedder := _text_embedder(encoder)) is None:
            save(encoder, new)
        else:
            embedder.save_to_preset(str(new))
            encoder_json.write(encoder, new)
        section = _NO_TEXT_EMBEDDER if encoder.is_cut else []
        card.write(encoder, new, name=directory.name, source=source, library="keras-hub", section=section)
    return directory


def _text_embedder(encoder: Encoder) -> Any | None:
    import keras_hub

    family = type(encoder.backbone).__name__.removesuffix("Backbone")
    embedder_class = getattr(keras_hub.models, f"{family}TextEmbedder", None)
    mode = _POOLING_MODES.get(encoder.config.pooling)
    if embedder_class is None or mode is None or encoder.head_at_inference or encoder.is_cut:
        return None
    preprocessor_class = getattr(keras_hub.models, f"{family}TextEmbedderPreprocessor")
    preprocessor = preprocessor_class(encoder.tokenizer, sequence_length=encoder.max_length)
    return embedder_class(encoder.backbone, preprocessor, pooling_mode=mode, normalize=True)


def _text_embedder_config(directory: Path) -> EncoderConfig | None:
    """How a text embedder pools; None for another preset."""
    task, preprocessor = directory / "task.json", directory / "preprocessor.json"
    if not task.is_file():
        return None
    about = read_json_object(task)
    if not str(about.get("registered_name", "")).endswith("TextEmbedder"):
        return None
    mode = str(about.get("config", {}).get("pooling_mode"))
    if mode not in _POOLING:
        raise UserError(f"{task}: pooling by '{mode}' is not supported; supported: {', '.join(_POOLING)}.")
    settings = read_json_object(preprocessor).get("config", {}) if preprocessor.is_file() else {}
    return EncoderConfig(pooling=_POOLING[mode], head="none", max_length=settings.get("sequence_length"))
