"""SentEval's transfer tasks on small data in its layout, with an encoder whose answer is known."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest

from simcse_tf.errors import UserError
from simcse_tf.evaluation import classifier, transfer

pytest.importorskip("sklearn", reason="scikit-learn is in the extra 'eval'")

KINDS = ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta")


def noise(text, size=4):
    return np.random.default_rng(zlib.crc32(text.encode())).normal(size=size)


def encode(texts):
    """One number per known word, large if the sentence has it, and some noise: classes named by a word separate."""
    return np.stack([[*(4.0 * (w in t.split()) for w in WORDS), *(0.1 * noise(t))] for t in texts])


def blind(texts):
    """Knows nothing about the words."""
    return np.stack([noise(t, 3) for t in texts])


def sentences(word, n, start=0):
    return [f"{word} number n{i} {'and more ' * (i % 3)}".strip() for i in range(start, start + n)]


def write(path, lines, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(line + "\n" for line in lines).encode(encoding))


@pytest.fixture
def downstream(tmp_path):
    """All seven tasks, small; classes are told apart by their word."""
    for positive, negative in (
        ("MR/rt-polarity.pos", "MR/rt-polarity.neg"),
        ("CR/custrev.pos", "CR/custrev.neg"),
        ("SUBJ/subj.subjective", "SUBJ/subj.objective"),
        ("MPQA/mpqa.pos", "MPQA/mpqa.neg"),
    ):
        write(tmp_path / positive, sentences("alpha", 18), "latin-1")
        write(tmp_path / negative, sentences("beta", 24), "latin-1")
    for split, n in (("train", 20), ("dev", 6), ("test", 10)):
        rows = [f"{s}\t{label}" for label, w in ((1, "alpha"), (0, "beta")) for s in sentences(w, n)]
        write(tmp_path / f"SST/binary/sentiment-{split}", rows)
    for name, n in (("train_5500", 6), ("TREC_10", 3)):
        rows = [f"{k}:detail {s} ?" for k, w in zip(KINDS, WORDS, strict=True) for s in sentences(w, n)]
        write(tmp_path / f"TREC/{name}.label", rows, "latin-1")
    for split, n in (("train", 15), ("test", 8)):
        rows = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        for i in range(n):
            a, b = f"{WORDS[i % 3]} first n{i}", f"{WORDS[i % 3]} second n{i}"
            rows += [f"1\t{i}\t{i}\t{a}\t{b}", f"0\t{i}\t{i}\t{a} x\t{WORDS[(i + 1) % 3]} second n{i}"]
        write(tmp_path / f"MRPC/msr_paraphrase_{split}.txt", rows)
    return tmp_path


@pytest.mark.parametrize("task", transfer.TASKS)
def test_classes_that_the_encoder_separates_score_one_hundred(downstream, task):
    result = transfer.evaluate(encode, task, downstream, folds=3)
    assert result.task == task
    assert result.accuracy == pytest.approx(100)
    assert result.dev_accuracy == pytest.approx(100)
    assert result.f1 == (pytest.approx(100) if task == "MRPC" else None)
    assert list(result.examples) == list(transfer.TASKS[task].splits)


def test_an_encoder_that_knows_nothing_scores_about_chance(downstream):
    write(downstream / "MR/rt-polarity.pos", sentences("alpha", 150))
    write(downstream / "MR/rt-polarity.neg", sentences("beta", 150))
    result = transfer.evaluate(blind, "MR", downstream, folds=3)
    assert 35 < result.accuracy < 65


def test_the_published_protocol_has_ten_folds(downstream, monkeypatch):
    seen = []
    monkeypatch.setattr(transfer, "classify", lambda data, folds: seen.append(folds) or classifier.Outcome(1, 2, None))
    assert transfer.evaluate(encode, "CR", downstream).accuracy == 1
    assert seen == [10]


def test_sizes_other_than_the_published_ones_are_noted(downstream, monkeypatch):
    monkeypatch.setattr(transfer, "classify", lambda data, folds: classifier.Outcome(1, 2, None))
    assert transfer.evaluate(encode, "TREC", downstream, folds=3).note == (
        "not comparable with published figures: train has 36 examples, not 5,452; test has 18 examples, not 500"
    )
    write(downstream / "CR/custrev.pos", sentences("alpha", 2_407))
    write(downstream / "CR/custrev.neg", sentences("beta", 1_368))
    assert transfer.evaluate(encode, "CR", downstream).note == ""


def test_examples_are_read_with_their_labels_and_sorted_by_words_and_label(tmp_path):
    write(tmp_path / "MPQA/mpqa.pos", ["caf\xe9  noir ", "a b c", ""], "latin-1")
    write(tmp_path / "MPQA/mpqa.neg", ["one two", "x"], "latin-1")
    examples = transfer.load("MPQA", tmp_path)["all"]
    assert examples.a == ["", "x", "one two", "café noir", "a b c"]
    assert examples.labels == [1, 0, 0, 1, 1]
    assert examples.b is None

    write(tmp_path / "SUBJ/subj.objective", ["fact"])
    write(tmp_path / "SUBJ/subj.subjective", ["lovely"])
    examples = transfer.load("SUBJ", tmp_path)["all"]
    assert dict(zip(examples.a, examples.labels, strict=True)) == {"fact": 1, "lovely": 0}

    write(tmp_path / "TREC/train_5500.label", ["NUM:dist How far is it from A: to B ?", "HUM:ind Who ?"], "latin-1")
    write(tmp_path / "TREC/TREC_10.label", ["ABBR:exp What is a b ?"], "latin-1")
    splits = transfer.load("TREC", tmp_path)
    assert (splits["train"].a, splits["train"].labels) == (["Who ?", "How far is it from A: to B ?"], [3, 5])
    assert (splits["test"].a, splits["test"].labels) == (["What is a b ?"], [0])

    header = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
    rows = [header, '1\t7\t8\t"Quoted, he said\tHe said\r', "0\t1\t2\tA b\tC d e"]
    for split in ("train", "test"):
        write(tmp_path / f"MRPC/msr_paraphrase_{split}.txt", rows)
    examples = transfer.load("MRPC", tmp_path)["train"]
    assert (examples.a, examples.b, examples.labels) == (["A b", '"Quoted, he said'], ["C d e", "He said"], [0, 1])


def test_pair_features_are_the_difference_and_the_product(downstream, monkeypatch):
    seen = {}
    monkeypatch.setattr(transfer, "classify", lambda data, folds: seen.update(data) or classifier.Outcome(1, 2, None))
    transfer.evaluate(encode, "MRPC", downstream, folds=3)
    examples = transfer.load("MRPC", downstream)["test"]
    x, y = seen["test"]
    u, v = encode(examples.a), encode(examples.b)
    np.testing.assert_allclose(x, np.concatenate([abs(u - v), u * v], axis=1))
    np.testing.assert_array_equal(y, examples.labels)


def test_each_distinct_sentence_is_encoded_once(downstream):
    calls = []

    def counting(texts):
        calls.append(list(texts))
        return encode(texts)

    transfer.evaluate(counting, "SST2", downstream)
    assert len(calls) == 1
    assert len(set(calls[0])) == len(calls[0]) == 40  # dev and test repeat train's sentences


def noisy_data(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    return x, (x[:, 0] + rng.normal(size=n) > 0).astype(int)


def grid_search(x, y, grid, cv):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    model = LogisticRegression(solver="liblinear", random_state=1111)
    return GridSearchCV(model, {"C": grid}, cv=cv).fit(x, y)


def test_nested_cross_validation_equals_scikit_learns_grid_search():
    from sklearn.model_selection import StratifiedKFold

    x, y = noisy_data(150)
    cv = StratifiedKFold(5, shuffle=True, random_state=1111)
    accuracy = []
    for fit, held in cv.split(x, y):
        search = grid_search(x[fit], y[fit], [0.25, 0.5, 1, 2, 4, 8], cv)
        accuracy.append(100 * search.score(x[held], y[held]))
    outcome = classifier.classify({"all": (x, y)}, 5)
    assert outcome.accuracy == pytest.approx(np.mean(accuracy))
    assert 65 < outcome.accuracy < 90


def test_a_test_split_is_scored_once_with_the_regularisation_that_the_folds_of_train_pick():
    from sklearn.model_selection import StratifiedKFold

    x, y = noisy_data(120)
    test_x, test_y = noisy_data(80, seed=1)
    search = grid_search(x, y, [0.5, 1, 2, 4, 8, 16, 32], StratifiedKFold(5, shuffle=True, random_state=1111))
    outcome = classifier.classify({"train": (x, y), "test": (test_x, test_y)}, 5)
    assert outcome.accuracy == pytest.approx(100 * search.score(test_x, test_y))
    assert outcome.dev_accuracy == pytest.approx(100 * search.best_score_)
    np.testing.assert_array_equal(outcome.predictions, search.predict(test_x))


def test_a_dev_split_picks_the_regularisation_and_is_not_trained_on():
    from sklearn.linear_model import LogisticRegression

    data = {split: noisy_data(n, seed=n) for split, n in (("train", 60), ("dev", 41), ("test", 83))}
    models = [
        LogisticRegression(C=c, solver="liblinear", random_state=1111).fit(*data["train"])
        for c in (0.25, 0.5, 1, 2, 4, 8)
    ]
    best = max(models, key=lambda model: model.score(*data["dev"]))
    outcome = classifier.classify(data, 10)
    assert outcome.dev_accuracy == pytest.approx(100 * best.score(*data["dev"]))
    assert outcome.accuracy == pytest.approx(100 * best.score(*data["test"]))


def test_f1_is_that_of_the_positive_class(downstream):
    from sklearn.metrics import f1_score

    result = transfer.evaluate(blind, "MRPC", downstream, folds=3)
    examples = transfer.load("MRPC", downstream)
    features = {s: np.hstack([abs(blind(e.a) - blind(e.b)), blind(e.a) * blind(e.b)]) for s, e in examples.items()}
    data = {s: (features[s], np.array(e.labels)) for s, e in examples.items()}
    predictions = classifier.classify(data, 3).predictions
    assert result.f1 == pytest.approx(100 * f1_score(data["test"][1], predictions))
    assert result.f1 < 100


def test_available_lists_found_and_missing_tasks(downstream):
    for file in (downstream / "MR").iterdir():
        file.unlink()
    assert transfer.available(downstream) == (["CR", "SUBJ", "MPQA", "SST2", "TREC", "MRPC"], ["MR"])
    assert transfer.available(downstream, ["TREC", "MR"]) == (["TREC"], ["MR"])
    with pytest.raises(UserError, match=r"unknown transfer task 'SST-2'. Did you mean 'SST2'"):
        transfer.available(downstream, ["SST-2"])
    with pytest.raises(UserError, match="nowhere: no such directory"):
        transfer.available(downstream / "nowhere")


@pytest.mark.parametrize(
    ("task", "file", "number", "line", "message"),
    [
        ("SST2", "SST/binary/sentiment-dev", 3, "no label", r"1 tab-separated column\(s\), expected 2"),
        ("SST2", "SST/binary/sentiment-test", 1, "fine\t2", "unknown label '2'. Expected one of 0, 1"),
        ("TREC", "TREC/TREC_10.label", 5, "ANIMAL:cat What ?", "unknown label 'ANIMAL'"),
        ("TREC", "TREC/train_5500.label", 2, "What is this ?", "expected 'LABEL:detail question'"),
        ("MRPC", "MRPC/msr_paraphrase_train.txt", 4, "1\t2\t3\tonly one", "4 tab-separated"),
        ("MRPC", "MRPC/msr_paraphrase_test.txt", 2, "yes\t2\t3\ta\tb", "unknown label 'yes'"),
        ("MRPC", "MRPC/msr_paraphrase_test.txt", 1, "1\t2\t3\ta\tb", "expected the header 'Quality"),
    ],
)
def test_a_bad_line_names_file_and_line(downstream, task, file, number, line, message):
    path = downstream / file
    lines = path.read_text("utf-8").split("\n")
    lines[number - 1] = line
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(UserError, match=rf"{path}:{number}: {message}"):
        transfer.evaluate(encode, task, downstream)


def test_bytes_that_are_not_utf8_name_file_and_line(downstream):
    path = downstream / "SST/binary/sentiment-train"
    path.write_bytes(b"fine\t1\ncaf\xe9\t0\n")
    with pytest.raises(UserError, match=rf"{path}:2: not utf-8"):
        transfer.load("SST2", downstream)


@pytest.mark.parametrize(
    ("task", "file"),
    [("MR", "MR/rt-polarity.neg"), ("TREC", "TREC/TREC_10.label"), ("SST2", "SST/binary/sentiment-dev")],
)
def test_empty_and_missing_files_are_named(downstream, task, file):
    (downstream / file).write_bytes(b"")
    with pytest.raises(UserError, match=f"{downstream / file}: no sentences"):
        transfer.load(task, downstream)
    (downstream / file).unlink()
    with pytest.raises(UserError, match=f"{downstream / file}: cannot be read"):
        transfer.load(task, downstream)


@pytest.mark.parametrize(("task", "smallest"), [("MR", 18), ("TREC", 6)])
def test_fewer_examples_of_a_class_than_folds_is_an_error_before_anything_is_encoded(downstream, task, smallest):
    def never(texts):
        raise AssertionError("encoded")

    with pytest.raises(UserError, match=rf"{task} \(.*\): .*{smallest} examples of the smallest; 18-fold"):
        transfer.evaluate(never, task, downstream, folds=18)


def test_an_embedding_with_nan_names_the_task_and_the_sentence(downstream):
    def broken(texts):
        vectors = encode(texts)
        vectors[texts.index("beta number n0")] = np.nan
        return vectors

    with pytest.raises(UserError, match=r"CR: .*NaN or infinity for 1 sentence.*'beta number n0'"):
        transfer.evaluate(broken, "CR", downstream)


def test_a_missing_extra_is_named_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UserError, match=r"scikit-learn.*simcse-tf\[eval\]"):
        transfer.evaluate(encode, "MR", tmp_path)
