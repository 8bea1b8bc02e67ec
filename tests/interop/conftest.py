"""Cross-checks against PyTorch's libraries, MediaPipe and vector databases.

`make test-interop` runs them in an environment of their own, which has those; in any other nothing is collected here.
"""

from importlib.util import find_spec

if any(
    find_spec(library) is None
    for library in ("lancedb", "mediapipe", "mteb", "pymilvus", "sentence_transformers", "torch", "transformers")
):
    collect_ignore_glob = ["test_*.py"]
else:
    # Its import closes the handlers of all logs: later, absl's too, and with it the file into which pytest captures.
    import pymilvus  # noqa: F401  # pyright: ignore[reportMissingImports]
