"""Exported models: written, served, asked and searched."""

from simcse_tf.serving.client import Client

__all__ = ["Client"]
