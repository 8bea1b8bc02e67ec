"""The Gradio page: similarity to explore. `python -m demo`."""
