"""SimCSE for Keras 3 and TensorFlow: contrastive sentence embeddings, from text to a served model.

Train an encoder as a Keras model::

    import keras
    from simcse_tf import InfoNCE, SimCSE, STSCallback, bundled_pairs

    model = SimCSE.from_preset("minilm", pooling="avg", objective=InfoNCE(temperature=0.1))
    model.compile(optimizer=keras.optimizers.AdamW(3e-5))
    model.fit(texts, batch_size=64, callbacks=[STSCallback(bundled_pairs())])
    model.encoder.encode(["Text in, unit vector out."])

Use one, wherever it is::

    import simcse_tf

    model = simcse_tf.load("saved_models/quickstart")
    model.similarity("A man plays the guitar.", "Someone makes music.")

The names in `__all__` are the public ones. What they mean changes only after one minor release in which the old way
still works, with a warning. Everything else may change at any time. Each name is imported when it is first used, so
that `import simcse_tf` takes no time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simcse_tf.data.sources import open_source
    from simcse_tf.errors import UserError
    from simcse_tf.evaluation.development_files import open_development_set
    from simcse_tf.evaluation.pairs import bundled as bundled_pairs
    from simcse_tf.evaluation.pairs import read_pairs
    from simcse_tf.evaluation.sts import TASKS as STS_TASKS
    from simcse_tf.evaluation.sts import load as load_pairs
    from simcse_tf.evaluation.suite import evaluate_encoder
    from simcse_tf.evaluation.transfer import TASKS as TRANSFER_TASKS
    from simcse_tf.formats.encoders import SentenceEncoder
    from simcse_tf.loading import load_client as load
    from simcse_tf.models.distillation import Distillation
    from simcse_tf.models.matryoshka import Matryoshka
    from simcse_tf.models.objectives import CoSENT, InfoNCE, Objective, TripletMargin
    from simcse_tf.models.terms import AlignUniform, DimensionContrast, RankConsistency, WithTerms
    from simcse_tf.serving.client import Client
    from simcse_tf.training.callbacks import DevelopmentCallback, STSCallback
    from simcse_tf.training.optimizer import AdamW
    from simcse_tf.training.simcse import SimCSE

__version__ = "0.2.0"

__all__ = [
    "AdamW",
    "AlignUniform",
    "Client",
    "CoSENT",
    "DevelopmentCallback",
    "DimensionContrast",
    "Distillation",
    "InfoNCE",
    "Matryoshka",
    "Objective",
    "RankConsistency",
    "STSCallback",
    "STS_TASKS",
    "SentenceEncoder",
    "SimCSE",
    "TRANSFER_TASKS",
    "TripletMargin",
    "UserError",
    "WithTerms",
    "__version__",
    "bundled_pairs",
    "evaluate_encoder",
    "load",
    "load_pairs",
    "open_development_set",
    "open_source",
    "read_pairs",
]

# Public name: the module that has it, and its name there.
_HOME = {
    "AdamW": ("training.optimizer", "AdamW"),
    "AlignUniform": ("models.terms", "AlignUniform"),
    "Client": ("serving.client", "Client"),
    "CoSENT": ("models.objectives", "CoSENT"),
    "DevelopmentCallback": ("training.callbacks", "DevelopmentCallback"),
    "DimensionContrast": ("models.terms", "DimensionContrast"),
    "Distillation": ("models.distillation", "Distillation"),
    "InfoNCE": ("models.objectives", "InfoNCE"),
    "Matryoshka": ("models.matryoshka", "Matryoshka"),
    "Objective": ("models.objectives", "Objective"),
    "RankConsistency": ("models.terms", "RankConsistency"),
    "STSCallback": ("training.callbacks", "STSCallback"),
    "STS_TASKS": ("evaluation.sts", "TASKS"),
    "SentenceEncoder": ("formats.encoders", "SentenceEncoder"),
    "SimCSE": ("training.simcse", "SimCSE"),
    "TRANSFER_TASKS": ("evaluation.transfer", "TASKS"),
    "TripletMargin": ("models.objectives", "TripletMargin"),
    "UserError": ("errors", "UserError"),
    "WithTerms": ("models.terms", "WithTerms"),
    "bundled_pairs": ("evaluation.pairs", "bundled"),
    "evaluate_encoder": ("evaluation.suite", "evaluate_encoder"),
    "load": ("loading", "load_client"),
    "load_pairs": ("evaluation.sts", "load"),
    "open_development_set": ("evaluation.development_files", "open_development_set"),
    "open_source": ("data.sources", "open_source"),
    "read_pairs": ("evaluation.pairs", "read_pairs"),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'simcse_tf' has no attribute '{name}'")
    import importlib

    from simcse_tf import quiet

    module, attribute = _HOME[name]
    if module.startswith(("formats.", "models.", "training.")):
        quiet.import_tensorflow()
    value = getattr(importlib.import_module(f"simcse_tf.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
