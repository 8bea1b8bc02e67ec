"""Runs a SavedModel as TF Serving would: the v1 Session loader, in a process that knows nothing of Keras or this
package.

Called as a script by `simcse_tf.serving.savedmodel`: `python session_check.py DIRECTORY < texts.json >
embeddings.json`.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the parent may hold the GPU

import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the tokenizer's operations)


def run(directory: str, texts: list[str]) -> list[list[float]]:
    """Feeds texts to `serving_default`; returns one embedding each."""
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        model = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
        signature = model.signature_def["serving_default"]
        feed = {signature.inputs["text"].name: [text.encode() for text in texts]}
        return session.run(signature.outputs["embedding"].name, feed).tolist()


if __name__ == "__main__":
    json.dump(run(sys.argv[1], json.load(sys.stdin)), sys.stdout)
