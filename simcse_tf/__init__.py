"""SimCSE for Keras 3 and TensorFlow: contrastive sentence embeddings, from text to a served model."""

__version__ = "0.1.0"
