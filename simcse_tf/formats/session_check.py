"""Runs a SavedModel as TF Serving would: the v1 Session loader, in a process of its own.

Called as a script by `simcse_tf.formats.savedmodel`: `python session_check.py DIRECTORY < texts.json > answers.json`.
"""

import json
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the parent may hold the GPU

# This file's folder, where modules have the names of packages that TensorFlow imports.
_HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if path != _HERE]

# As `cli.lean_imports` does, which cannot be imported here: a third of the time of the import.
modules: dict[str, Any] = sys.modules
modules.update(dict.fromkeys(("matplotlib", "pandas", "PIL", "scipy", "sklearn")))

import tensorflow as tf  # noqa: E402
import tensorflow_text  # noqa: E402, F401  (registers the tokenizer's operations)


def run(directory: str, texts: list[str]) -> dict[str, Any]:
    """Feeds texts to every signature.

    Returns:
        `embeddings` of the texts by signature, those that are strings of bytes as numbers from 0 to 255; of a batch of
        `none`; `score` of each text with itself; `token_ids`.
    """
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        model = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)

        def ask(signature, output, texts):
            definition = model.signature_def[signature]
            feed = {tensor.name: [text.encode() for text in texts] for tensor in definition.inputs.values()}
            return session.run(definition.outputs[output].name, feed).tolist()

        outputs = {name: next(iter(model.signature_def[name].outputs)) for name in model.signature_def}
        embeddings = {name: output for name, output in outputs.items() if output.startswith("embedding")}
        return {
            "embeddings": {
                name: [list(row) for row in ask(name, output, texts)] for name, output in embeddings.items()
            },
            "none": ask("serving_default", "embedding", []),
            "score": ask("similarity", "score", texts),
            "token_ids": ask("tokens", "token_ids", texts),
        }


if __name__ == "__main__":
    json.dump(run(sys.argv[1], json.load(sys.stdin)), sys.stdout)
