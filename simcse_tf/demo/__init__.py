"""The Gradio page: similarity to explore. `python -m simcse_tf.demo`."""
