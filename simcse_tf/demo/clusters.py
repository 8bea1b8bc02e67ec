"""Groups of sentences, and the words that say what each is about."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simcse_tf.demo import text

# A name has so many words; of the vocabulary the most frequent ones are looked at.
_WORDS, _VOCABULARY = 3, 30_000


def clusters(vectors: np.ndarray, most: int) -> np.ndarray:
    """k-means by cosine: for each vector its group, 0 for the largest.

    Args:
        vectors: `(n, dim)` float32 of unit length.
        most: Groups; of few vectors fewer.
    """
    import faiss

    k = max(2, min(most, len(vectors) // 6))
    means = faiss.Kmeans(vectors.shape[1], k, niter=20, nredo=10, seed=0, spherical=True, min_points_per_centroid=1)
    means.train(vectors)
    # Equal vectors leave groups empty.
    found, groups = np.unique(means.assign(vectors)[1], return_inverse=True)
    order = np.argsort(-np.bincount(groups, minlength=len(found)), kind="stable")
    return np.argsort(order)[groups]


def names(texts: Sequence[str], groups: np.ndarray) -> list[str]:
    """The words of each group that are frequent in it and rare in the others (class TF-IDF, as BERTopic's).

    A group in which no word comes twice is named by one of its sentences.

    Args:
        texts: `n`.
        groups: `(n,)` int.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    count = int(groups.max()) + 1
    first = [text.shorten(texts[int(np.flatnonzero(groups == group)[0])], 40) for group in range(count)]
    try:
        reader = CountVectorizer(stop_words="english", max_features=_VOCABULARY)
        words_of_texts = reader.fit_transform(texts)
    except ValueError:  # no words at all
        return first
    belongs = csr_matrix((np.ones(len(texts)), (groups, np.arange(len(texts)))), shape=(count, len(texts)))
    found = np.asarray((belongs @ words_of_texts).todense())
    shares = found / np.maximum(found.sum(axis=1, keepdims=True), 1)
    weights = shares * np.log1p(found.sum() / count / found.sum(axis=0))
    words = reader.get_feature_names_out().tolist()
    best = np.argsort(-weights, axis=1, kind="stable")[:, :_WORDS].tolist()
    said = [", ".join(words[i] for i in row if found[group, i] > 1) for group, row in enumerate(best)]
    return [name or instead for name, instead in zip(said, first, strict=True)]
