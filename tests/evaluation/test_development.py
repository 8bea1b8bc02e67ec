"""Development sets of every kind: figures against other implementations, files, and what can be wrong with one."""

import gzip
import json
import subprocess
import sys
import zlib

import numpy as np
import pytest
from scipy import stats

from simcse_tf import open_development_set
from simcse_tf.errors import UserError
from simcse_tf.evaluation import pairs, retrieval, sts, suite
from simcse_tf.evaluation.development import Graded, Labelled, Triplets, labelled_figures
from simcse_tf.evaluation.development_files import find
from simcse_tf.evaluation.retrieval import Retrieval, retrieval_figures

# A text is what is in it: its vector.
DIM = 5


def encode(texts):
    """Equal texts have equal vectors, and different ones have random vectors."""
    return np.stack([np.random.default_rng(zlib.crc32(text.encode())).normal(size=DIM) for text in texts])


def cosines(a, b):
    x, y = encode(a), encode(b)
    return np.sum(x * y, axis=1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)


def rows(n=40):
    return [f"left {i}" for i in range(n)], [f"right {i}" for i in range(n)]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = content if isinstance(content, str) else "".join(json.dumps(row) + "\n" for row in content)
        path.write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
        return path

    return write


@pytest.fixture
def beir(write, tmp_path):
    """BEIR's layout: 3 documents, 3 queries, judgements of two of them."""
    corpus = [("d1", "Cats", "They purr."), ("d2", "", "Dogs bark."), ("d3", "Empty", "")]
    write("set/corpus.jsonl", [{"_id": i, "title": title, "text": text, "metadata": {}} for i, title, text in corpus])
    write("set/queries.jsonl", [{"_id": f"q{i}", "text": f"question {i}"} for i in (1, 2, 3)])
    write("set/qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t1\nq1\td3\t0\nq3\td3\t1\n")
    return tmp_path / "set"


class TestFigures:
    def test_graded_pairs_have_scipys_correlations_and_no_alignment_on_another_scale(self, write):
        a, b = rows()
        grades = np.random.default_rng(0).integers(1, 101, len(a))
        table = "score,sentence1,sentence2\n" + "".join(f"{g},{x},{y}\n" for g, x, y in zip(grades, a, b, strict=True))
        found = open_development_set(write("mine.csv", table)).figures(encode)
        assert found == {
            "spearman": pytest.approx(100 * stats.spearmanr(cosines(a, b), grades).statistic),
            "pearson": pytest.approx(100 * stats.pearsonr(cosines(a, b), grades).statistic),
        }

    def test_graded_pairs_on_sts_scale_are_scored_as_the_tasks_are(self):
        (bundled,) = find(["bundled"])
        found, result = bundled.figures(encode), sts.evaluate(encode, sts.bundled())
        assert (found["spearman"], found["pearson"]) == result.all
        assert found["uniformity"] < 0 < found["alignment"]

    @pytest.mark.parametrize("ties", [False, True])
    def test_labelled_pairs_have_scikit_learns_average_precision_and_no_threshold_does_better(self, ties):
        metrics = pytest.importorskip("sklearn.metrics")
        rng = np.random.default_rng(ties)
        same = rng.integers(0, 2, 200).astype(bool)
        scores = rng.normal(size=200) / 3 + 0.2 * same
        scores = np.round(scores, 1) if ties else scores
        found = labelled_figures(scores, same)
        assert found["average_precision"] == pytest.approx(100 * metrics.average_precision_score(same, scores))
        accuracies = [np.mean((scores >= t) == same) for t in [*scores, 9]]
        assert found["accuracy"] == pytest.approx(100 * max(accuracies))
        assert np.mean((scores >= found["threshold"]) == same) == max(accuracies)

    def test_the_threshold_lies_midway_and_calls_all_or_no_pairs_the_same_where_that_is_best(self):
        assert labelled_figures(np.array([0.9, 0.5, 0.1]), np.array([1, 1, 0]))["threshold"] == pytest.approx(0.3)
        assert labelled_figures(np.array([0.1, 0.5, 0.9]), np.array([1, 1, 0]))["threshold"] == -1
        assert labelled_figures(np.array([0.1, 0.5, 0.9]), np.array([1, 0, 0]))["threshold"] > 0.9

    def test_triplets_count_the_nearer_positives_and_a_tie_is_wrong(self, write):
        a, b = rows()
        negatives = [f"other {i}" for i in range(39)] + [b[39]]
        table = [
            dict(zip(("anchor", "positive", "negative"), row, strict=True)) for row in zip(a, b, negatives, strict=True)
        ]
        found = open_development_set(write("mine.jsonl", table))
        assert isinstance(found, Triplets)
        assert found.figures(encode) == {"accuracy": 100 * np.mean(cosines(a, b) > cosines(a, negatives))}

    def test_retrieval_by_hand(self):
        # Query 0: grade 1 on rank 2, grade 3 on rank 4. Query 1: its only document on rank 1. Query 2: not found.
        answers = [[9, 1, 8, 2, 7, 6], [5, 9], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]]
        found = retrieval_figures(answers, [{1: 1.0, 2: 3.0}, {5: 1.0}, {11: 1.0}])
        ideal = 3 / np.log2(2) + 1 / np.log2(3)
        ndcg = (1 / np.log2(3) + 3 / np.log2(5)) / ideal
        assert found == pytest.approx(
            {
                "ndcg@10": 100 * (ndcg + 1) / 3,
                "mrr@10": 100 * (1 / 2 + 1) / 3,
                "recall@1": 100 * (0 + 1) / 3,
                "recall@5": 100 * (1 + 1) / 3,
                "recall@10": 100 * (1 + 1) / 3,
            }
        )

    def test_blocks_change_nothing_and_a_full_sort_says_the_same(self, monkeypatch):
        rng = np.random.default_rng(0)
        queries, documents = [f"q{i}" for i in range(17)], [f"d{i % 90}" for i in range(101)]
        relevant = [{int(j): float(j % 3 + 1) for j in rng.choice(101, 4, replace=False)} for _ in queries]
        found = Retrieval("mine", "here", queries, documents, relevant).figures(encode)
        x, y = encode(queries), encode(documents)
        scores = np.round(
            (x / np.linalg.norm(x, axis=1, keepdims=True)) @ (y / np.linalg.norm(y, axis=1, keepdims=True)).T, 12
        )
        # Copies of a text stand together, at the place of the first.
        order = np.lexsort(np.broadcast_arrays(np.arange(101) % 90, -scores), axis=1)[:, :10]
        assert found == retrieval_figures(order.tolist(), relevant)
        for queries_a_block, documents_a_block in ((1, 1), (5, 7), (17, 12)):
            monkeypatch.setattr(retrieval, "_QUERIES", queries_a_block)
            monkeypatch.setattr(retrieval, "_DOCUMENTS", documents_a_block)
            assert Retrieval("mine", "here", queries, documents, relevant).figures(encode) == found

    def test_of_equally_similar_documents_the_earlier_comes_first(self, monkeypatch):
        monkeypatch.setattr(retrieval, "_DOCUMENTS", 3)

        def collapsed(texts):
            return np.ones((len(texts), DIM))

        for place, rank in ((0, 1), (4, 5), (9, 10), (10, None)):
            found = Retrieval("mine", "here", ["q"], [f"d{i}" for i in range(20)], [{place: 1.0}]).figures(collapsed)
            assert found["mrr@10"] == (100 / rank if rank else 0)

    def test_no_more_than_a_block_of_documents_is_embedded_at_once(self, monkeypatch):
        monkeypatch.setattr(retrieval, "_DOCUMENTS", 8)
        asked = []

        def counting(texts):
            asked.append(len(texts))
            return encode(texts)

        Retrieval("mine", "here", ["q"], [f"d{i}" for i in range(20)], [{3: 1.0}]).figures(counting)
        assert asked == [1, 8, 8, 4]

    def test_pairs_with_texts_in_common_are_one_query_or_one_document(self):
        found = Retrieval.from_pairs("mine", "here", [("a", "x"), ("a", "y"), ("b", "x")])
        assert (found.queries, found.documents) == (["a", "b"], ["x", "y"])
        assert found.relevant == [{0: 1.0, 1: 1.0}, {0: 1.0}]

    def test_a_text_on_both_sides_is_no_answer_to_itself_unless_a_pair_says_so(self):
        # The first two are the same pair in both directions.
        found = Retrieval.from_pairs("mine", "here", [("a", "b"), ("b", "a"), ("c", "c"), ("c", "d")])
        assert found.itself == {0: 1, 1: 0}
        vectors = {"a": (1, 0), "b": (1, 0.1), "c": (0, 1), "d": (0.1, 1)}
        figures = found.figures(lambda texts: np.array([vectors[text] for text in texts], float))
        assert (figures["mrr@10"], figures["ndcg@10"]) == (100, pytest.approx(100))

    def test_queries_and_documents_have_their_prompts_if_the_model_has_any_and_other_sets_none(self):
        asked = []

        class Model:
            prompt_names = ("query", "passage")

            def encode(self, texts, *, prompt_name=None):
                asked.append((prompt_name, texts))
                return encode([f"{prompt_name}: {text}" for text in texts])

            def encode_twice(self, texts, *, prompt_name=None):
                return [self.encode(texts, prompt_name=prompt_name)] * 2

        a, b = rows()
        search = Retrieval.from_pairs("mine", "here", list(zip(a, b, strict=True)))
        found = search.figures(Model().encode)
        assert asked == [("query", a), ("passage", b)]
        written_out = [(f"query: {x}", f"passage: {y}") for x, y in zip(a, b, strict=True)]
        assert found == Retrieval.from_pairs("mine", "here", written_out).figures(encode)
        assert [each.figures for each in search.score_each(Model().encode_twice, 2)] == [found, found]
        asked.clear()
        suite.evaluate_encoder(Model(), on=[search, Triplets("t", "here", a, b, a[::-1]), sts.bundled()])
        assert [name for name, _ in asked] == ["query", "passage", None, None]

    def test_an_encoder_that_gives_nan_is_named_with_the_set(self):
        with pytest.raises(UserError, match="mine: the encoder gave NaN"):
            Retrieval.from_pairs("mine", "here", [("a", "x"), ("b", "y")]).figures(
                lambda texts: np.full((len(texts), 2), np.nan)
            )


class TestKinds:
    @pytest.mark.parametrize(
        ("name", "content", "kind"),
        [
            ("a.csv", "sentence1,sentence2,score\na,b,1\nc,d,2\n", Graded),
            ("a.tsv", "grade\ttext1\ttext2\n1\ta\tb\n2\tc\td\n", Graded),
            ("a.csv.gz", "x,y,score\na,b,1\nc,d,2\n", Graded),
            ("a.csv", "question,answer,label,source\na,b,1,s\nc,d,0,s\n", Labelled),
            ("a.jsonl", [{"text1": "a", "text2": "b", "label": 0}, {"text1": "c", "text2": "d", "label": 1}], Labelled),
            ("a.csv", "sent0,sent1,hard_neg\na,b,c\n", Triplets),
            ("a.csv", "x,y,z\na,b,c\n", Triplets),
            ("a.csv", "query,document\na,b\nc,d\n", Retrieval),
            ("a.csv", "x,y\na,b\nc,d\n", Retrieval),
            ("a.jsonl", [{"anchor": "a", "positive": "b", "id": 1}, {"anchor": "c", "positive": "d"}], Retrieval),
        ],
    )
    def test_the_columns_say_the_kind(self, write, name, content, kind):
        found = open_development_set(write(name, content))
        assert type(found) is kind
        assert found.name == "a"
        assert found.headline in found.labels

    def test_the_kind_can_be_said_where_the_columns_say_another_or_none(self, write):
        triplets = write("a.csv", "anchor,positive,negative\na,b,c\nd,e,f\n")
        (found,) = find([f"retrieval:{triplets}"])
        assert (found.queries, found.documents) == (["a", "d"], ["b", "e"])
        graded = write("b.csv", "x,y,z\na,b,0.5\nc,d,0.7\n")
        assert open_development_set(graded, kind="graded").pairs.gold.tolist() == [0.5, 0.7]
        mixed = write("c.jsonl", [{"anchor": "a", "positive": "b", "negative": "c", "score": 1, "label": "x"}])
        assert isinstance(open_development_set(mixed, kind="triplets"), Triplets)

    def test_a_file_of_documents_may_stand_beside_a_file_of_pairs(self, write):
        pairs, corpus = write("a+b.csv", "query,document\na,b\nc,d\n"), write("c.txt", "e\nb\n\nf\n")
        (found,) = find([f"{pairs}+{corpus}"])
        assert (found.name, found.queries, found.documents) == ("a+b", ["a", "c"], ["b", "d", "e", "f"])
        assert found.relevant == [{0: 1.0}, {1: 1.0}]
        assert find([str(pairs)])[0].documents == ["b", "d"]
        table = write("c.csv", "id,text\n1,e\n2,f\n")
        assert open_development_set(pairs, corpus=table).documents == ["b", "d", "e", "f"]

    @pytest.mark.parametrize(
        ("pairs", "corpus", "message"),
        [
            ("a.csv", "none.txt", r"none.txt: No such file.*After the \+"),
            ("a.csv", "two.csv", r"two.csv:1: which of its columns \(query, document\) is the text"),
            ("a.csv", "bad.csv", r"bad.csv:3: 'text' is empty"),
            ("graded.csv", "good.txt", r"graded.csv\+.*good.txt: graded sets have no corpus. Omit \+"),
            (".", "good.txt", r"has its corpus in it. Omit \+"),
        ],
    )
    def test_a_corpus_that_cannot_be_used_is_named(self, write, tmp_path, pairs, corpus, message):
        write("a.csv", "query,document\na,b\nc,d\n")
        write("graded.csv", "sentence1,sentence2,score\na,b,1\nc,d,2\n")
        write("two.csv", "query,document\na,b\n")
        write("bad.csv", "text\na\n  \n")
        write("good.txt", "e\nf\n")
        with pytest.raises(UserError, match=message):
            find([f"{tmp_path / pairs}+{tmp_path / corpus}"])

    def test_unusual_columns_are_named(self, write):
        path = write("a.jsonl", [{"summary": "a", "body": "b"}, {"summary": "c", "body": "d"}])
        assert open_development_set(path, columns=("summary", "body")).queries == ["a", "c"]
        assert find([str(path)], columns=("summary", "body"))[0].documents == ["b", "d"]
        with pytest.raises(UserError, match=r"a.jsonl:1: two or three columns of text.*summary, body.*`columns`"):
            open_development_set(path)

    def test_columns_that_a_file_has_not_are_an_error_unless_they_are_those_of_training_data(self, write):
        path = write("a.csv", "sentence1,sentence2\na,b\nc,d\n")
        for read in (
            lambda columns: open_development_set(path, columns=columns),
            lambda columns: suite.load(on=path, columns=columns),
        ):
            with pytest.raises(UserError, match=r"a.csv:1: no column 'sentence3'. Did you mean 'sentence[12]'"):
                read(("sentence1", "sentence3"))
        other = write("b.jsonl", [{"sentence1": "a", "sentence3": "b"}, {"sentence1": "c", "sentence3": "d"}])
        assert len(suite.load(on=[path, other], columns=("sentence1", "sentence3")).on) == 2
        assert find([str(path)], columns=("sentence1", "sentence3"))[0].queries == ["a", "c"]

    def test_a_kind_that_is_given_is_that_of_all_rows(self, write):
        rows = [{"anchor": "a", "positive": "b"}, {"anchor": "c", "positive": "d", "negative": "e", "score": 1}]
        assert open_development_set(write("a.jsonl", rows), kind="retrieval").documents == ["b", "d"]

    def test_beirs_layout_is_read_as_it_is(self, beir):
        found = open_development_set(beir)
        assert found.name == "set"
        assert found.queries == ["question 1", "question 3"]
        assert found.documents == ["Cats They purr.", "Dogs bark.", "Empty"]
        assert found.relevant == [{0: 2.0, 1: 1.0}, {2: 1.0}]
        assert found.size == "2 queries, 3 documents"

    def test_of_several_judgements_dev_is_taken_or_the_one_that_is_named(self, beir, write):
        write("set/qrels/train.tsv", "query-id\tcorpus-id\tscore\nq2\td2\t1\n")
        with pytest.raises(UserError, match=r"which of its judgements.*qrels/test.tsv or .*qrels/train.tsv"):
            open_development_set(beir)
        named = open_development_set(beir / "qrels" / "train.tsv")
        assert (named.name, named.queries) == ("set-train", ["question 2"])
        write("set/qrels/dev.tsv", "query-id\tcorpus-id\tscore\nq3\td2\t1\n")
        assert open_development_set(beir).queries == ["question 3"]

    def test_a_query_that_is_in_the_corpus_is_no_answer_to_itself(self, beir, write):
        write("set/queries.jsonl", [{"_id": "d2", "text": "Dogs bark."}, {"_id": "d1", "text": "Other text."}])
        write("set/qrels/test.tsv", "query-id\tcorpus-id\tscore\nd2\td3\t1\nd1\td3\t1\n")
        found = open_development_set(beir)
        assert found.itself == {0: 1}
        # "Dogs bark." would be its own best answer.
        vectors = {"Dogs bark.": (1, 0), "Empty": (0.9, 0.1), "Cats They purr.": (-1, 0), "Other text.": (0, 1)}
        assert found.figures(lambda texts: np.array([vectors[text] for text in texts], float))["recall@1"] == 100


class TestSeveral:
    def test_the_first_selects_or_the_one_that_is_named(self, write):
        path = str(write("docs.csv", "query,document\na,b\nc,d\n"))
        assert [each.name for each in find([path, "bundled"])] == ["docs", "bundled"]
        assert [each.name for each in find([path, "bundled"], select_by="bundled")] == ["bundled", "docs"]
        with pytest.raises(UserError, match="`select_by` dosc: no development set has this name. Did you mean 'docs'"):
            find([path, "bundled"], select_by="dosc")

    def test_sts_b_takes_the_place_of_the_general_pairs_or_comes_beside_files(self, write, tmp_path, monkeypatch):
        bundled = sts.bundled()
        loaded = sts.Pairs("STSB-dev", bundled.a, bundled.b, bundled.gold, bundled.subsets, "there")
        monkeypatch.setattr(sts, "load", lambda task, where: loaded)
        path = str(write("docs.csv", "query,document\na,b\nc,d\n"))
        for specs, names in (
            (["bundled"], ["STSB-dev"]),
            (["tfds:glue/stsb", path], ["STSB-dev", "docs"]),
            ([path], ["docs", "STSB-dev"]),
        ):
            assert [each.name for each in find(specs, sts_dir=tmp_path)] == names

    def test_two_sets_of_one_name_are_refused(self, write):
        paths = [str(write(f"{folder}/dev.csv", "query,document\na,b\nc,d\n")) for folder in "xy"]
        with pytest.raises(UserError, match=r"two development sets are called 'dev' \(.*x/dev.csv and .*y/dev.csv\)"):
            find(paths)

    def test_the_suite_judges_on_them_beside_the_tasks(self, write):
        path = write("docs.csv", "query,document\na,b\nc,d\n")
        expected = open_development_set(path).figures(encode)
        judgement = suite.judge(encode, suite.load(on=[path]))
        assert judgement.scores == {}
        assert judgement.to_dict()["on"]["docs"]["figures"] == expected
        assert f"{expected['ndcg@10']:.2f}  nDCG@10 x 100" in repr(judgement)
        both = suite.evaluate_encoder(encode, on=[open_development_set(path)], tasks=["bundled"])
        assert list(both.scores) == ["bundled"]
        assert dict(both.on[0][1]) == expected

    def test_graded_pairs_and_a_single_path_are_taken_too(self, write):
        path = write("docs.csv", "query,document\na,b\nc,d\n")
        for one in (path, str(path), open_development_set(path)):
            assert [each.name for each in suite.load(on=one).on] == ["docs"]
        mine = pairs.read_pairs(write("graded.tsv", "score\tsentence1\tsentence2\n1\ta\tb\n5\tc\td\n"))
        loaded = suite.load(on=[mine, path])
        assert [(each.name, each.kind) for each in loaded.on] == [("graded", "graded"), ("docs", "retrieval")]
        assert suite.load(on=mine).on[0].pairs is mine

    @pytest.mark.parametrize("on", [5, [None], [b"docs.csv"]])
    def test_what_is_no_set_is_named_with_its_type(self, on):
        with pytest.raises(UserError, match=r"`on`: a (int|NoneType|bytes) is not a development set"):
            suite.load(on=on)

    def test_two_sets_of_one_name_are_refused_whatever_they_are_given_as(self, write):
        path = write("docs.csv", "query,document\na,b\nc,d\n")
        with pytest.raises(UserError, match="`on`: two development sets are called 'docs'"):
            suite.load(on=[open_development_set(path), path])


BAD = {
    "every grade is equal": ("a.csv", "x,y,score\n\na,b,3\nc,d,3.0\n", r"a.csv:3: the score of this and .* is 3"),
    "every label is equal": ("a.csv", "x,y,label\na,b,1\nc,d,1\n", r"a.csv:2: the label of this and .* is 1"),
    "a label that is a grade": (
        "a.csv",
        "x,y,label\na,b,1\nc,d,2\n",
        r"a.csv:3: 'label' is \"2\", expected 0 or 1.*graded:",
    ),
    "a label that is a word": (
        "a.jsonl",
        [{"text1": "a", "text2": "b", "label": "yes"}],
        r"a.jsonl:1: 'label' is \"yes\"",
    ),
    "a grade that is no number": ("a.csv", "x,y,score\na,b,high\n", r"a.csv:2: 'score' is \"high\", expected a number"),
    "a grade that is NaN": ("a.csv", "x,y,score\na,b,nan\n", r"a.csv:2: 'score' is \"nan\""),
    "a grade that is null": ("a.jsonl", [{"text1": "a", "text2": "b", "score": None}], r"a.jsonl:1: 'score' is null"),
    "a grade that no float holds": ("a.jsonl", [{"text1": "a", "text2": "b", "score": 10**400}], r"a.jsonl:1: 'score'"),
    "an index column without a name": ("a.csv", ",x,y\n0,a,b\n", r"a.csv:1: which of its columns \(, x, y\)"),
    "two columns of one name": ("a.csv", "x,x,score\na,b,1\n", r"a.csv:1: two columns are named 'x'"),
    "two columns of grades": ("a.csv", "x,y,score,score\na,b,1,2\n", r"a.csv:1: two columns are named 'score'"),
    "three columns that may be texts": (
        "a.csv",
        "id,x,y,score\n1,a,b,1\n",
        r"a.csv:1: which two of the columns id, x, y are the texts\? Name them with `columns`",
    ),
    "columns of two kinds": ("a.csv", "x,y,score,label\na,b,1,1\n", r"a.csv:1: mixed columns: .*x, y, score, label"),
    "a score beside triplets": (
        "a.csv",
        "anchor,positive,negative,score\na,b,c,1\n",
        r"a.csv:1: mixed columns.*score and negative .*graded:a.csv",
    ),
    "rows of two kinds": (
        "a.jsonl",
        [{"anchor": "a", "positive": "b"}, {"anchor": "a", "positive": "b", "negative": "c"}],
        r"a.jsonl:2: has 'negative', which the first row does not have",
    ),
    "a row without a column": (
        "a.jsonl",
        [{"anchor": "a", "positive": "b", "negative": "c"}, {"anchor": "a", "positive": "b"}],
        r"a.jsonl:2: no 'negative'",
    ),
    "a query without a document": ("a.csv", "query,document\na,b\nc,\n", r"a.csv:3: 'document' is empty"),
    "one document for all": ("a.csv", "query,document\na,b\nc,b\n", r"a.csv:2: the corpus is one document"),
    "one column of text": ("a.csv", "text,label\na,1\n", r"a.csv:1: two or three columns of text are needed"),
    "an empty file": ("a.csv", "", r"a.csv: empty \(0 lines\)"),
    "a header alone": ("a.csv", "x,y,score\n", r"a.csv:1: no rows"),
    "sentences": ("a.txt", "One.\nTwo.\n", r"a.txt: single sentences are not a development set"),
    "another suffix": ("a.parquet", "PAR1", r"the suffix '.parquet' is unknown"),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_named_with_file_and_line(write, name):
    file, content, message = BAD[name]
    with pytest.raises(UserError, match=message):
        open_development_set(write(file, content))


def test_texts_are_not_guessed_and_not_read_twice_where_the_kind_is_given(write):
    path = write("a.csv", "id,x,y,score\n1,a,b,1\n2,c,d,2\n")
    with pytest.raises(UserError, match=r"a.csv:1: which two of the columns id, x, y are the texts"):
        open_development_set(path, kind="graded")
    for columns in (("x", "y"), ("x", "y", "score")):
        assert open_development_set(path, columns=columns).pairs.b == ["b", "d"]
    with pytest.raises(UserError, match=r"a.csv:1: the column 'x' is chosen twice"):
        open_development_set(path, columns=("x", "x"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq1\td1\t1\nq3\td9\t1\n",
            r":3: the corpus-id d9 is not in",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq9\td1\t1\n", r"test.tsv:2: the query-id q9 is not in"),
        (
            "qrels/test.tsv",
            "query-id\tcorpus-id\tscore\nq1\td1\t1\nq3\td1\t0\n",
            r":3: the query q3 has no relevant",
        ),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tgood\n", r"test.tsv:2: 'score' is \"good\""),
        ("qrels/test.tsv", "q1\t0\td1\t1\n", r"test.tsv:1: expected the header query-id, corpus-id, score"),
        ("qrels/test.tsv", "", r"test.tsv: empty"),
        ("corpus.jsonl", "", r"corpus.jsonl: empty"),
        (
            "corpus.jsonl",
            '{"_id": "d1", "text": "x"}\n{"_id": "d1", "text": "y"}\n',
            r"corpus.jsonl:2: the _id d1",
        ),
        ("corpus.jsonl", '{"_id": "d1"}\n', r"corpus.jsonl:1: no 'text'"),
        ("queries.jsonl", '{"_id": "q1", "text": " "}\n', r"queries.jsonl:1: 'text' is empty"),
    ],
)
def test_what_is_wrong_in_beirs_layout_is_named_with_file_and_line(beir, write, file, content, message):
    write(f"set/{file}", content)
    with pytest.raises(UserError, match=message):
        open_development_set(beir)


def test_a_directory_of_another_layout_and_unknown_names_say_what_was_expected(tmp_path):
    with pytest.raises(UserError, match=r"corpus.jsonl: not found. Expected BEIR's layout"):
        open_development_set(tmp_path)
    with pytest.raises(UserError, match=r"`dev` bundeld: neither a file nor a known name. Did you mean 'bundled'"):
        find(["bundeld"])
    with pytest.raises(UserError, match=r"`dev` heldout: neither .* Did you mean 'held-out'"):
        find(["heldout"])
    with pytest.raises(UserError, match=r"nowhere.csv: No such file or directory"):
        find(["graded:nowhere.csv"])
    with pytest.raises(UserError, match=r"xx.csv: File name too long"):
        find(["x" * 300 + ".csv"])
    (tmp_path / "qrels").mkdir()
    with pytest.raises(UserError, match=r"xx.tsv: File name too long"):
        open_development_set(tmp_path / "qrels" / f"{'x' * 300}.tsv")
    with pytest.raises(UserError, match="`kind` grade: unknown. Did you mean 'graded'"):
        open_development_set("x.csv", kind="grade")


def test_a_development_set_is_read_without_tensorflow(beir):
    code = "import sys, simcse_tf as s; s.open_development_set(sys.argv[1]); assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(beir)], check=True)
