"""What TF Serving reads beside a model: warm-up requests, batching parameters, an entry in its configuration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from simcse_tf.serving import messages
from simcse_tf.serving.exported import EXTRA

# Where TF Serving looks for the warm-up requests, under the version's directory.
WARMUP = Path(EXTRA) / "tf_serving_warmup_requests"
BATCH_SIZES = (1, 8, 32, 64)

# Requests that arrive together share one pass. Texts of any number and length may be joined: the padding is made inside
# the graph, after joining.
_BATCHING = """\
# For --batching_parameters_file, together with --enable_batching.
# Texts per pass at most; a larger request is refused, so keep it above the client's batch_size.
max_batch_size { value: 128 }
# Microseconds that a text waits for others to share its pass.
batch_timeout_micros { value: 1000 }
# Passes at the same time: the number of CPU cores, or 1 or 2 on a GPU.
num_batch_threads { value: 4 }
# Passes that may wait; beyond that the server answers "unavailable", and the client tries again.
max_enqueued_batches { value: 1000 }
"""
_MODELS = """\
# For --model_config_file. Mount the model's directory at the base_path.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    # The newest version is served. To go back to version 1, replace `latest` by: specific {{ versions: 1 }}
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
}}
"""


def write_warmup(version: Path, name: str, signatures: Sequence[str], texts: list[str]) -> None:
    """Writes requests that a server runs before it serves a version, so that the first user does not wait.

    The records are built from the tables in `messages`, so that an export needs no package beyond TensorFlow.

    Args:
        version: The version's directory.
        name: The model's name.
        signatures: Those that give embeddings; each has a first call of its own.
        texts: At least one; they are repeated to fill the batches.
    """
    import tensorflow as tf

    path = version / WARMUP
    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, size in itertools.product(signatures, BATCH_SIZES):
            batch = [texts[i % len(texts)] for i in range(size)]
            record = messages.PredictionLog()
            record.predict_log.request.CopyFrom(messages.predict_request(name, batch, signature=signature))
            writer.write(record.SerializeToString())


def write_configuration(model: Path) -> None:
    """Writes `batching_params.pbtxt` and `models.config` beside the versions, but not over existing ones."""
    for file, text in (("batching_params.pbtxt", _BATCHING), ("models.config", _MODELS.format(name=model.name))):
        if not (model / file).exists():
            (model / file).write_text(text, "utf-8")
