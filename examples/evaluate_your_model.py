"""Scores any function from texts to vectors; here one that counts words and knows nothing of meaning.

python examples/evaluate_your_model.py --sts-dir SentEval/data

`SentenceTransformer("...").encode` and `simcse_tf.load("...").encode` are such functions too.
"""

import argparse
import zlib

import numpy as np

from simcse_tf import bundled_pairs, evaluate_encoder, load_pairs

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


pairs = load_pairs("STSB-dev", flags.sts_dir) if flags.sts_dir else bundled_pairs()
result = evaluate_encoder(encode, pairs)
print(f"{result.task}: Spearman x 100 {result.all.spearman:.2f}, Pearson x 100 {result.all.pearson:.2f}")
