"""Sends odd strings through exported models, in a process that has imported only tensorflow and tensorflow_text.

`python fuzz_worker.py COUNT DIRECTORY...`: prints how many strings gave a finite unit vector, per directory.
"""

import os
import random
import sys

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401  (registers the tokenizer's operations)

RANGES = [(0x20, 0x7E), (0x00, 0x1F), (0x80, 0x24F), (0x590, 0x6FF), (0x900, 0xDFF), (0x2000, 0x206F), (0x3040, 0x9FFF)]
RANGES += [
    (0xAC00, 0xD7A3),
    (0xE000, 0xF8FF),
    (0xFE00, 0xFFFF),
    (0x1F300, 0x1FAFF),
    (0xE0000, 0xE007F),
    (0x10FFF0, 0x10FFFF),
]
WORDS = ["the", "dog", "a", "[CLS]", "[SEP]", "</s>", "<mask>", "##s", "\u0120the", "\u096c", "  ", "\n", "\x00"]


def odd_string(rng: random.Random) -> bytes:
    """Text of one script or of all, words of the vocabulary, bytes at random, and any of them cut in the middle."""
    kind = rng.randrange(5)
    length = int(10 ** rng.uniform(0, 2.5))
    if kind == 0:
        return rng.randbytes(length)
    if kind == 1:
        return " ".join(rng.choices(WORDS, k=length)).encode()
    ranges = [rng.choice(RANGES)] if kind == 2 else RANGES
    text = "".join(chr(rng.randint(*rng.choice(ranges))) for _ in range(length)).encode("utf-8", "surrogatepass")
    return text[: rng.randint(0, len(text))] if kind == 4 else text


def strings(count: int) -> list[bytes]:
    rng = random.Random(0)
    longest = [
        "a" * 100_000,
        "the dog " * 12_500,
        " " * 100_000,
        "\U0001f600" * 100_000,
        "\x00" * 100_000,
        "\u0301" * 100_000,
    ]
    longest += ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=100_000)), "\u05d0" * 100_000]
    texts = [b"", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", *(text.encode() for text in longest)]
    return texts + [odd_string(rng) for _ in range(count - len(texts))]


def survivors(directory: str, texts: list[bytes]) -> int:
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        model = tf.compat.v1.saved_model.loader.load(session, ["serve"], directory)
        signature = model.signature_def["serving_default"]
        text, embedding = signature.inputs["text"].name, signature.outputs["embedding"].name
        vectors = np.concatenate(
            [session.run(embedding, {text: texts[i : i + 100]}) for i in range(0, len(texts), 100)]
        )
        again = session.run(embedding, {text: texts[:100]})
    assert np.array_equal(again, vectors[:100]), "another answer to the same texts"
    return int((np.isfinite(vectors).all(axis=1) & (np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-4)).sum())


if __name__ == "__main__":
    assert not [name for name in sys.modules if name.startswith(("simcse_tf", "keras_hub"))]
    for path in sys.argv[2:]:
        print(survivors(path, strings(int(sys.argv[1]))))
