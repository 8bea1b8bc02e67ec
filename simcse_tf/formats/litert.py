"""LiteRT: a directory that turns strings into vectors on servers without TensorFlow, phones and small computers."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.checks import check_choice, require
from simcse_tf.config import Quantize
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, sha256, whole_directory, write_json
from simcse_tf.formats import card
from simcse_tf.formats.check_texts import check_texts
from simcse_tf.formats.fast_tokenizers import bytes_read, fast_tokenizer
from simcse_tf.models.encoder import Encoder
from simcse_tf.serving.exported import EMBEDDER, ENCODER_FILE, MODEL_FILE, TOKENIZER_FILE

# What a text's exported vector must have of the live one, as a cosine.
SMALLEST_COSINE: dict[Quantize, float] = {"none": 0.9999, "float16": 0.9999, "int8": 0.98}
# How far apart the Spearman correlations of both with people's grades may be, in hundredths.
_LARGEST_LOSS = 0.3
# What a fresh process does with an exported directory; it fails if TensorFlow was needed for that.
_RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from embedder import Embedder
vectors = Embedder().encode(json.load(sys.stdin))
assert not {"tensorflow", "keras"} & set(sys.modules)
json.dump(vectors.astype(float).tolist(), sys.stdout)
"""


class Quality(NamedTuple):
    """What an exported model is against the live one."""

    # How many texts were compared, and the smallest cosine between both vectors of one.
    texts: int
    smallest_cosine: float
    # Of the bundled pairs, times 100.
    spearman: float
    live_spearman: float


def export(encoder: Encoder, directory: Path, *, source: str = "", quantize: Quantize = "none") -> Path:
    """Writes a directory that turns strings into vectors with `numpy`, `tokenizers` and `ai-edge-litert` alone.

    It has `model.tflite`, `tokenizer.json`, `encoder.json`, a model card, and `embedder.py`, which is all the program
    that is needed to use them. The directory appears only after a fresh process without TensorFlow got the live
    encoder's embeddings from it: for 21 texts a cosine of at least 0.9999 (`int8`: 0.98), for the bundled pairs a
    Spearman correlation within 0.3 hundredths.

    Args:
        encoder: The encoder.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.
        quantize: How weights are stored and multiplied: `none`, float32; `float16`, half the size, multiplied in
            float32; `int8`, a quarter of the size, multiplied in 8 bits, with one scale per row of a matrix.

    Returns:
        The directory.

    Raises:
        UserError: The directory exists or cannot be written; ai-edge-litert is missing; the tokenizer has no
            counterpart outside of TensorFlow; the exported model differs from the live one.
    """
    check_new(directory)
    with whole_directory(directory) as new:
        write(encoder, new, name=directory.name, source=source, quantize=quantize)
    return directory


def write(
    encoder: Encoder, new: Path, *, name: str, source: str, quantize: Quantize, section: Sequence[str] = ()
) -> None:
    """Writes what `export` describes into an empty directory, and checks it; `section` is added to the model card."""
    check_choice("quantize", quantize, get_args(Quantize))
    require("ai_edge_litert", "litert", "a LiteRT model is checked with ai-edge-litert")
    tokenizer = fast_tokenizer(encoder.tokenizer, max_length=encoder.max_length)

    def serve(ids, mask):
        return {"embedding": embed(encoder, ids, mask)}

    (new / MODEL_FILE).write_bytes(convert(encoder, serve, ("ids", "mask"), quantize))
    tokenizer.save(str(new / TOKENIZER_FILE))
    shutil.copyfile(EMBEDDER, new / EMBEDDER.name)
    checksums = {file: sha256(new / file) for file in (MODEL_FILE, TOKENIZER_FILE)}
    about = {"format": "litert", "quantize": quantize, **encoder.about(), **card.provenance(source)}
    about["bytes_read"] = bytes_read(encoder.tokenizer, max_length=encoder.max_length)
    write_json(new / ENCODER_FILE, about | {"sha256": checksums})
    quality = check(encoder, _RUN, new, check_texts(), quantize)
    section = [*section, *_card_section(new, quantize, quality)]
    card.write(
        encoder,
        new,
        name=name,
        source=source,
        section=section,
        packages=card.LITERT_PACKAGES,
        prompts_added_by='`Embedder().encode(texts, prompt_name="query")` does that, and `passage` likewise.',
    )


def embed(encoder: Encoder, ids: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """`(1, dim)` float32 of unit length, of one text's tokens, `(1, length)` int32: what LiteRT can convert."""
    return encoder.finished(encoder({"token_ids": ids, "padding_mask": mask}, training=False, pack=False))


def convert(
    encoder: Encoder, serve: Callable[..., dict[str, tf.Tensor]], inputs: Sequence[str], quantize: Quantize
) -> bytes:
    """A function of the encoder as a LiteRT model.

    The length is dynamic, the batch is not: one interpreter per core is faster than a batch, which is padded.

    Args:
        encoder: What `serve` uses.
        serve: Maps one int32 tensor `(1, length)` per input to the model's outputs.
        inputs: Their names.
        quantize: How weights are stored and multiplied.

    Returns:
        The file's bytes.
    """
    # ExportArchive, because TFLiteConverter.from_concrete_functions writes a Keras 3 model without its weights.
    archive = keras.export.ExportArchive()
    archive.track(encoder.backbone)
    if encoder.head is not None:
        archive.track(encoder.head)
    specs = [tf.TensorSpec([1, None], tf.int32, name=name) for name in inputs]
    archive.add_endpoint("serving_default", serve, input_signature=specs)
    with tempfile.TemporaryDirectory(prefix="simcse_tf_") as saved:
        archive.write_out(saved, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(saved)
        if quantize != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantize == "float16":
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def check(encoder: Encoder, program: str, path: Path, texts: Sequence[str], quantize: Quantize) -> Quality:
    """Compares an exported model, run in a fresh process without TensorFlow, with the live encoder.

    Args:
        encoder: The live one.
        program: Python code that reads a JSON array of texts from stdin and writes one of their vectors to stdout.
        path: Its argument.
        texts: Those whose vectors are compared; the ranking of the bundled pairs is compared as well.
        quantize: How the exported model stores its weights, on which depends what is allowed.

    Raises:
        UserError: The program fails, or the vectors differ.
    """
    gold, a, b = _bundled_pairs()
    everything = [*texts, *a, *b]
    from scipy import stats

    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)],
        input=json.dumps(everything),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UserError(f"the exported model does not run in a process without TensorFlow:\n{done.stderr[-2000:]}")
    exported, live = np.array(json.loads(done.stdout)), encoder.encode(everything)
    cosines = np.sum(exported[: len(texts)] * live[: len(texts)], axis=1)

    def spearman(vectors: np.ndarray) -> float:
        a_and_b = vectors[len(texts) :].reshape(2, len(gold), -1)
        correlation: Any = stats.spearmanr(np.sum(a_and_b[0] * a_and_b[1], axis=1), gold)
        return float(correlation.statistic) * 100

    quality = Quality(len(texts), float(cosines.min()), spearman(exported), spearman(live))
    loss = abs(quality.spearman - quality.live_spearman)
    smallest = SMALLEST_COSINE[quantize]
    # Written so that a NaN fails.
    if not (quality.smallest_cosine >= smallest and loss <= _LARGEST_LOSS):
        finer = "" if quantize == "none" else " Store the weights in a finer format: `quantize` none."
        raise UserError(
            f"the exported model differs from the live one: a cosine of {quality.smallest_cosine:.4f} between both "
            f"vectors of a text (allowed: {smallest}), and a Spearman correlation of {quality.spearman:.2f} instead of "
            f"{quality.live_spearman:.2f} (allowed: {_LARGEST_LOSS} from it). It was not exported.{finer}"
        )
    return quality


def _bundled_pairs() -> tuple[list[float], list[str], list[str]]:
    """Grades, first and second sentences."""
    text = (resources.files("simcse_tf.data.corpora") / "pairs.tsv").read_text("utf-8")
    rows = list(csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    gold = [float(row["score"]) for row in rows]
    return gold, [row["sentence1"] for row in rows], [row["sentence2"] for row in rows]


def _card_section(directory: Path, quantize: Quantize, quality: Quality) -> list[str]:
    return [
        "## Use",
        "",
        "    pip install ai-edge-litert tokenizers numpy",
        "",
        "    from embedder import Embedder",
        '    Embedder().encode(["Text in, unit vector out."])',
        "",
        "TensorFlow is not needed. `simcse_tf` takes this directory wherever it takes a SavedModel.",
        "",
        *files_section([directory / MODEL_FILE, directory / TOKENIZER_FILE], quantize, quality, "of this directory"),
    ]


def files_section(files: Sequence[Path], quantize: Quantize, quality: Quality, where: str) -> list[str]:
    """The model card's lines on the files' sizes and on what the export has cost; `where` is the exported model."""
    return [
        "## Files",
        "",
        *card.table(
            "property",
            "value",
            [
                ("weights", card.WEIGHTS[quantize]),
                *((f"`{file.name}`", f"{file.stat().st_size / 1e6:.1f} MB") for file in files),
                ("Spearman x 100 on the bundled pairs, before export", f"{quality.live_spearman:.2f}"),
                (f"the same, {where}", f"{quality.spearman:.2f}"),
                (
                    f"smallest cosine to the encoder before export, {quality.texts} texts",
                    f"{quality.smallest_cosine:.4f}",
                ),
            ],
        ),
        "",
    ]
