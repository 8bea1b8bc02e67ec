"""Exported models, asked and searched, on disk and behind TF Serving."""

from simcse_tf.serving.client import Client

__all__ = ["Client"]
