"""Scores any function from texts to vectors; here one that counts words and knows nothing of meaning.

python examples/evaluate_your_model.py --sts-dir SentEval/data

An object with `encode(texts)` will do as well: `SentenceTransformer("...")`, `simcse_tf.load("...")`.
"""

import argparse
import zlib

import numpy as np

from simcse_tf import evaluate_encoder

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--sts-dir", help="SentEval's data directory; without it, the bundled pairs")
flags = parser.parse_args()


def encode(texts: list[str]) -> np.ndarray:
    """Word counts, hashed into 1,000 numbers: `(len(texts), 1000)`."""
    vectors = np.zeros((len(texts), 1000))
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.strip('.,;:!?"').encode()) % 1000] += 1
    return vectors


print(evaluate_encoder(encode, sts_dir=flags.sts_dir))
