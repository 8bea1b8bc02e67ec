"""Retrieval's figures beside trec_eval's own, which mteb brings."""

import numpy as np
import pytest
import pytrec_eval

from simcse_tf.evaluation.embedding import unit
from simcse_tf.evaluation.retrieval import Retrieval

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("documents", [7, 9000])
def test_graded_judgements_give_trec_evals_figures(documents):
    rng = np.random.default_rng(documents)
    queries, corpus = [f"q{i}" for i in range(40)], [f"d{i}" for i in range(documents)]
    vectors = {text: rng.normal(size=4) for text in (*queries, *corpus)}
    # Some of them near their query, so that they are found; up to 30 a query.
    relevant = []
    for query in queries:
        chosen = rng.choice(documents, rng.integers(1, min(30, documents)), replace=False)
        for place in chosen[: len(chosen) // 2 + 1]:
            vectors[corpus[place]] = vectors[query] + rng.normal(size=4) / 3
        relevant.append({int(place): float(rng.integers(1, 4)) for place in chosen})
    found = Retrieval("mine", "here", queries, corpus, relevant).figures(
        lambda texts: np.stack([vectors[text] for text in texts])
    )

    scores = unit(np.stack([vectors[q] for q in queries])) @ unit(np.stack([vectors[d] for d in corpus])).T
    qrels = {q: {corpus[j]: int(grade) for j, grade in own.items()} for q, own in zip(queries, relevant, strict=True)}
    # trec_eval's reciprocal rank has no end: it sees ten answers alone.
    run = {q: dict(zip(corpus, row.tolist(), strict=True)) for q, row in zip(queries, scores, strict=True)}
    ten = {q: dict(sorted(row.items(), key=lambda item: -item[1])[:10]) for q, row in run.items()}
    measured = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.1,5,10"}).evaluate(run)
    ranks = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate(ten)
    theirs = {"ndcg@10": "ndcg_cut_10", "recall@1": "recall_1", "recall@5": "recall_5", "recall@10": "recall_10"}
    expected = {ours: 100 * np.mean([row[name] for row in measured.values()]) for ours, name in theirs.items()}
    expected["mrr@10"] = 100 * np.mean([row["recip_rank"] for row in ranks.values()])
    assert found == pytest.approx(expected)
