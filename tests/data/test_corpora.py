"""What the corpora's README promises."""

import re
from collections import Counter
from itertools import chain

import pytest

from simcse_tf.data import sources
from simcse_tf.evaluation import sts


def words(text):
    return frozenset(re.findall(r"\w+", text.lower()))


def jaccard(a, b):
    return len(a & b) / len(a | b)


@pytest.fixture(scope="module")
def sentences():
    return [row[0] for row in sources.open_source("bundled").rows()]


@pytest.fixture(scope="module")
def triplets():
    return list(sources.open_source("bundled:triplets").rows())


@pytest.fixture(scope="module")
def pairs():
    return sts.bundled()


def test_sentences_are_many_and_of_all_lengths(sentences):
    assert len(sentences) >= 1500
    lengths = [len(s.split()) for s in sentences]
    assert min(lengths) >= 4
    assert max(lengths) <= 40
    assert all(count >= 50 for count in Counter(min(n // 5, 7) for n in lengths).values() if count > 40)


def test_no_templates(sentences):
    openings = Counter(" ".join(s.lower().split()[:3]) for s in sentences)
    assert max(openings.values()) <= 2


def test_no_near_duplicates(sentences):
    sets = [words(s) for s in sentences]
    holding = {}
    for i, s in enumerate(sets):
        for w in s:
            holding.setdefault(w, []).append(i)
    common = {w for w, where in holding.items() if len(where) > 400}
    for i, s in enumerate(sets):
        for j in {j for w in s - common for j in holding[w] if j > i}:
            assert jaccard(s, sets[j]) <= 0.4, (sentences[i], sentences[j])


def test_the_evaluation_pairs_are_not_in_the_training_text(sentences, triplets, pairs):
    training = [words(t) for t in sentences]
    for text in {*pairs.a, *pairs.b}:
        s = words(text)
        assert all(jaccard(s, t) <= 0.6 for t in training), text
    anchors = {t for row in triplets for t in row}
    assert not anchors & {*pairs.a, *pairs.b}


def test_triplets_are_distinct(triplets):
    assert len(triplets) >= 300
    assert all(len(row) == len(set(row)) == 3 for row in triplets)
    texts = list(chain.from_iterable(triplets))
    assert len(texts) == len(set(texts))


def test_pairs_fill_all_grades_and_hold_traps(pairs):
    assert len(pairs.gold) >= 300
    bands = Counter(int(g + 0.5) for g in pairs.gold)
    assert set(bands) == set(range(6))
    assert min(bands.values()) >= 50
    overlap = [jaccard(words(a), words(b)) for a, b in zip(pairs.a, pairs.b, strict=True)]
    assert sum(o > 0.5 and g <= 2.4 for o, g in zip(overlap, pairs.gold, strict=True)) >= 30
    assert sum(o < 0.2 and g >= 4 for o, g in zip(overlap, pairs.gold, strict=True)) >= 30
