from itertools import count, islice

from simcse_tf.data.nli import CONTRADICTION, ENTAILMENT, triplets

NEUTRAL, NO_GOLD = 1, -1


def test_a_premise_gives_its_first_entailment_and_its_first_contradiction():
    rows = [
        ("A man plays.", "He sleeps.", CONTRADICTION),
        ("A man plays.", "Someone plays.", ENTAILMENT),
        ("A man plays.", "He is dead.", CONTRADICTION),
        ("A man plays.", "A person plays.", ENTAILMENT),
    ]
    assert list(triplets(rows)) == [("A man plays.", "Someone plays.", "He sleeps.")]


def test_rows_of_a_premise_may_lie_far_apart():
    rows = [("p1", "e1", 0), ("p2", "c2", 2), ("p3", "e3", 0), ("p1", "c1", 2), ("p2", "e2", 0), ("p3", "c3", 2)]
    assert list(triplets(rows)) == [("p1", "e1", "c1"), ("p2", "e2", "c2"), ("p3", "e3", "c3")]


def test_a_premise_without_both_labels_gives_nothing():
    rows = [("p1", "e", ENTAILMENT), ("p1", "n", NEUTRAL), ("p2", "c", CONTRADICTION), ("p2", "x", NO_GOLD)]
    assert list(triplets(rows)) == []


def test_triplets_stream_from_an_endless_input():
    endless = ((f"p{i // 3}", f"h{i}", i % 3) for i in count())
    assert list(islice(triplets(endless), 2)) == [("p0", "h0", "h2"), ("p1", "h3", "h5")]
