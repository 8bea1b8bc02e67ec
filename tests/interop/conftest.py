"""Cross-checks against PyTorch's libraries, MediaPipe and vector databases.

`make test-interop` runs them in an environment of their own, which has those; in any other nothing is collected here.
"""

from importlib.util import find_spec

if any(
    find_spec(library) is None
    for library in ("lancedb", "mediapipe", "mteb", "pymilvus", "sentence_transformers", "torch", "transformers")
):
    collect_ignore_glob = ["test_*.py"]
