"""MediaPipe: one file for the Text Embedder of MediaPipe Tasks, on Android, iOS, the Web and in Python."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from simcse_tf.checks import check_choice, require
from simcse_tf.config import Quantize
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, read_json_object, whole_directory
from simcse_tf.formats import card, huggingface
from simcse_tf.formats.check_texts import check_texts
from simcse_tf.formats.families import FAMILIES
from simcse_tf.serving.exported import MODEL_FILE

if TYPE_CHECKING:
    from simcse_tf.formats.litert import Quality
    from simcse_tf.formats.presets import Origin
    from simcse_tf.models.encoder import Encoder

# What MediaPipe calls a BERT model's three inputs and the file with the vocabulary.
_INPUTS = ("ids", "mask", "segment_ids")
_VOCABULARY_FILE = "vocab.txt"
_WHY = "a model for MediaPipe is checked with mediapipe"
# keras-hub's tokenizers that split a text as MediaPipe does.
_TOKENIZERS = {f"{family.keras_hub}Tokenizer" for family in FAMILIES.values() if family.tokenizer == "wordpiece"}
# Where MediaPipe Tasks runs: the package, how a model is loaded there, how a text becomes an embedding.
_PLATFORMS = [
    (
        "Android (Kotlin)",
        "com.google.mediapipe:tasks-text",
        'TextEmbedder.createFromFile(context, "model.tflite")',
        "embedder.embed(text).embeddingResult().embeddings().first()",
    ),
    (
        "iOS (Swift)",
        "MediaPipeTasksText",
        "try TextEmbedder(modelPath: path)",
        "try embedder.embed(text: text).embeddingResult.embeddings[0]",
    ),
    (
        "Web (JavaScript)",
        "@mediapipe/tasks-text",
        'await TextEmbedder.createFromModelPath(await FilesetResolver.forTextTasks(wasm), "model.tflite")',
        "embedder.embed(text).embeddings[0]",
    ),
    (
        "Python",
        "mediapipe",
        'TextEmbedder.create_from_model_path("model.tflite")',
        "embedder.embed(text).embeddings[0]",
    ),
]
# What a fresh process does with an exported file. mediapipe imports TensorFlow where it is installed (10 s), for the
# sake of its own documentation.
_RUN = """
import json, sys
sys.modules["tensorflow"] = None
from mediapipe.tasks.python.text import TextEmbedder
with TextEmbedder.create_from_model_path(sys.argv[1]) as embedder:
    vectors = [embedder.embed(text).embeddings[0].embedding.tolist() for text in json.load(sys.stdin)]
json.dump(vectors, sys.stdout)
"""


def check_origin(origin: Origin) -> None:
    """Checks, without TensorFlow, that MediaPipe can tokenise for an encoder and that mediapipe is installed.

    A preset that is yet to be downloaded is checked when it is exported.

    Raises:
        UserError: It cannot, or is not.
    """
    if origin.directory is not None:
        _check_tokenizer(*_tokenizer(origin.kind, origin.directory))
    require("mediapipe", "mediapipe", _WHY)


def export(encoder: Encoder, directory: Path, *, source: str = "", quantize: Quantize = "none") -> Path:
    """Writes `model.tflite`, which MediaPipe's Text Embedder loads, and a model card.

    The vocabulary is packed into the file. The directory appears only after the real Text Embedder, in a fresh process,
    got the live encoder's embeddings from it: for the ASCII texts among those that every export is checked with, a
    cosine of at least 0.9999 (`int8`: 0.98), for the bundled pairs a Spearman correlation within 0.3 hundredths.

    MediaPipe neither cuts a text off nor pads it for a model whose length is dynamic, as here; the model itself drops
    the tokens beyond the encoder's `max_length`, and keeps [SEP].

    Args:
        encoder: An encoder with a WordPiece tokenizer that lowercases.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.
        quantize: How weights are stored and multiplied, as for LiteRT.

    Returns:
        The directory.

    Raises:
        UserError: The directory exists or cannot be written; mediapipe is missing; MediaPipe has no such tokenizer; the
            exported model differs from the live one.
    """
    import tensorflow as tf

    from simcse_tf.formats import litert

    check_new(directory)
    check_choice("quantize", quantize, get_args(Quantize))
    tokenizer = encoder.tokenizer
    _check_tokenizer(type(tokenizer).__name__, bool(getattr(tokenizer, "lowercase", False)))
    require("mediapipe", "mediapipe", _WHY)

    def shorten(tokens: tf.Tensor) -> tf.Tensor:
        return tf.concat([tokens[:, :-1][:, : encoder.max_length - 1], tokens[:, -1:]], axis=1)

    def serve(ids, mask, segment_ids):
        vector = litert.embed(encoder, shorten(ids), shorten(mask))
        # Keeps the input in the graph: MediaPipe insists on three, of which the third is all zeros.
        return {"embedding": vector + tf.cast(0 * tf.reduce_sum(segment_ids), tf.float32)}

    with whole_directory(directory) as new:
        model = litert.convert(encoder, serve, _INPUTS, quantize)
        (new / MODEL_FILE).write_bytes(_with_metadata(model))
        with zipfile.ZipFile(new / MODEL_FILE, "a") as packed:
            packed.writestr(_VOCABULARY_FILE, "".join(f"{word}\n" for word in tokenizer.get_vocabulary()))
        # Others are split otherwise, and mediapipe for Python ends a text at a NUL.
        texts = [text for text in check_texts() if text.isascii() and "\x00" not in text]
        quality = litert.check(encoder, _RUN, new / MODEL_FILE, texts, quantize)
        section = _card_section(encoder, new / MODEL_FILE, quantize, quality)
        packages = ("tensorflow", "keras", "keras-hub", "mediapipe")
        card.write(encoder, new, name=directory.name, source=source, section=section, packages=packages)
    return directory


def _tokenizer(kind: str, directory: Path) -> tuple[str, bool]:
    """keras-hub's name for a directory's tokenizer, and whether it lowercases."""
    if kind == "keras_hub":
        about = read_json_object(directory / "tokenizer.json")
        return str(about.get("class_name")), bool(about.get("config", {}).get("lowercase"))
    family = huggingface.check_directory(directory)
    file = directory / "tokenizer_config.json"
    settings = read_json_object(file) if file.is_file() else {}
    return f"{family.keras_hub}Tokenizer", bool(settings.get("do_lower_case", True))


def _check_tokenizer(name: str, lowercase: bool) -> None:
    if name not in _TOKENIZERS:
        raise UserError(
            f"MediaPipe cannot tokenise for this encoder: it has a {name}, and MediaPipe's Text Embedder only BERT's "
            "WordPiece. Export it for LiteRT instead: `format` litert."
        )
    if not lowercase:
        raise UserError(
            "MediaPipe cannot tokenise for this encoder: it distinguishes upper and lower case, and MediaPipe's Text "
            "Embedder lowercases every text. Export it for LiteRT instead: `format` litert."
        )


def _with_metadata(model: bytes) -> bytes:
    """The model with what MediaPipe has to know of it.

    mediapipe's own writers cannot be imported from its wheels (1.2.3 lacks the compiled module that they need); its
    schema can.
    """
    from tensorflow.lite.python import schema_py_generated as tflite
    from tensorflow.lite.tools import flatbuffer_utils

    parts: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    names = {tensor.tensorIndex: tensor.name.decode() for tensor in parts.signatureDefs[0].inputs}
    buffer, entry = tflite.BufferT(), tflite.MetadataT()
    buffer.data = _metadata([names[index] for index in parts.subgraphs[0].inputs])
    entry.name, entry.buffer = "TFLITE_METADATA", len(parts.buffers)
    parts.buffers.append(buffer)
    parts.metadata = [*(parts.metadata or []), entry]
    return flatbuffer_utils.convert_object_to_bytearray(parts)


def _metadata(inputs: list[str]) -> bytearray:
    """TFLite's model metadata: the inputs' names, in the model's order, the tokenizer and the output's name."""
    import flatbuffers
    from mediapipe.tasks.metadata import (  # pyright: ignore[reportMissingImports]  (the extra is optional)
        metadata_schema_py_generated as schema,
    )

    def tensor(name: str) -> Any:
        described = schema.TensorMetadataT()
        described.name = name
        return described

    vocabulary = schema.AssociatedFileT()
    vocabulary.name, vocabulary.type = _VOCABULARY_FILE, schema.AssociatedFileType.VOCABULARY
    tokenizer = schema.ProcessUnitT()
    tokenizer.optionsType = schema.ProcessUnitOptions.BertTokenizerOptions
    tokenizer.options = schema.BertTokenizerOptionsT()
    tokenizer.options.vocabFile = [vocabulary]
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata = [tensor(name) for name in inputs]
    graph.outputTensorMetadata = [tensor("embedding")]
    graph.inputProcessUnits = [tokenizer]
    model = schema.ModelMetadataT()
    model.name = "simcse_tf sentence encoder"
    model.subgraphMetadata = [graph]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"M001")
    return builder.Output()


def _card_section(encoder: Encoder, file: Path, quantize: Quantize, quality: Quality) -> list[str]:
    from simcse_tf.formats import litert

    if encoder.tokenizer.strip_accents:
        prepare = "bring it into form NFKD, remove its marks (`\\p{Mn}`), compose it (NFC), lowercase it,"
    else:
        prepare = "bring it into form NFKC, lowercase it,"
    return [
        "## Use",
        "",
        "`model.tflite` is all that an app needs for the Text Embedder of MediaPipe Tasks; the vocabulary is inside.",
        "",
        "| platform | package | load | embed |",
        "|---|---|---|---|",
        *(f"| {' | '.join((platform, *(f'`{part}`' for part in rest)))} |" for platform, *rest in _PLATFORMS),
        "",
        "`wasm` is the folder of that name in the npm package. Vectors have unit length: leave `l2_normalize` off.",
        "`quantize` gives 8-bit integers, 128 times the numbers; `TextEmbedder`'s own cosine similarity takes both.",
        "",
        "## What differs from the model before export",
        "",
        "The tokens. MediaPipe lowercases ASCII alone, strips no accents and keeps control characters: a word such",
        "as `caf\u00e9` or `\u00c9COLE` becomes other tokens than in training, often the unknown one. Printable ASCII",
        "gives the same tokens. So prepare a text before it is embedded:",
        prepare,
        "write `\u00df` as `ss`, and leave out `\u2026` and invisible characters.",
        "",
        f"A text is cut off after {encoder.max_length} tokens, as before export. The model does that: MediaPipe hands",
        "over all tokens.",
        "",
        *litert.files_section([file], quantize, quality, "in MediaPipe"),
    ]
