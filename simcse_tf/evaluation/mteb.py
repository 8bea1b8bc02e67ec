"""One of our models as `mteb` (2.x) wants it. Needs the extra `mteb`, which brings PyTorch.

For example:

    import mteb
    import simcse_tf
    from simcse_tf.evaluation.mteb import MtebEncoder

    encoder = MtebEncoder(simcse_tf.load("saved_models/quickstart"), "simcse-tf/quickstart")
    mteb.evaluate(encoder, mteb.get_tasks(["STS12"]))
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from simcse_tf.errors import UserError
from simcse_tf.evaluation.embedding import check

try:
    from mteb.models import ModelMeta  # pyright: ignore[reportMissingImports]  (the extra is optional)
    from mteb.models.abs_encoder import AbsEncoder  # pyright: ignore[reportMissingImports]
    from mteb.models.model_meta import ScoringFunction  # pyright: ignore[reportMissingImports]
except ImportError as e:
    raise UserError(
        f"running MTEB needs mteb 2 or newer, which the extra 'mteb' brings: pip install 'simcse-tf[mteb]' ({e})."
    ) from e


# The prompts for what mteb calls the sides of a search, which retrieval tasks alone have.
_PROMPT_NAMES = {"query": "query", "document": "passage"}


class _Encodes(Protocol):
    def encode(self, texts: list[str], *, batch_size: int = 64) -> np.ndarray: ...


class MtebEncoder(AbsEncoder):
    """Hands mteb's batches of texts to a model. Similarity is the cosine, computed by mteb.

    Args:
        model: Anything with `encode(texts, batch_size=...)`: what `simcse_tf.load` returns.
        name: `ORGANISATION/NAME`, under which mteb files the results.
        revision: Tells results of different trainings apart; mteb does not score a name and revision again.

    Raises:
        UserError: `name` has no organisation.
    """

    def __init__(self, model: _Encodes, name: str, revision: str = "1"):
        if name.count("/") != 1 or not all(name.split("/")):
            raise UserError(f"MtebEncoder: the name '{name}' is not ORGANISATION/NAME, which mteb files results under.")
        self.model = model
        self.mteb_model_meta = ModelMeta.create_empty(
            overwrites={
                "name": name,
                "revision": revision,
                "framework": ["TensorFlow"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
            }
        )

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> np.ndarray:
        """Embeds the texts of all batches; in retrieval tasks with the model's prompts, if it has any.

        Args:
            inputs: Batches with a list of strings under `text`: mteb's data loader.
            task_metadata: The task's; its name goes into errors.
            hf_split: Not used.
            hf_subset: Not used.
            prompt_type: Whether the texts are queries or documents, where the task has sides.
            batch_size: Texts per call of the model.
            **kwargs: Not used (progress bars and the like).

        Returns:
            `(n, dim)` float32, unit length.

        Raises:
            UserError: The task has no texts, or an embedding is not finite; names the task.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise UserError(
                    f"{task_metadata.name}: has {', '.join(batch)}, but no text; our encoders embed text alone."
                )
            texts += batch["text"]
        encode: Any = self.model.encode
        side = _PROMPT_NAMES.get(getattr(prompt_type, "value", prompt_type))
        if side in getattr(self.model, "prompt_names", ()):
            encode = functools.partial(encode, prompt_name=side)
        return check(encode(texts, batch_size=batch_size), texts, task_metadata.name)
