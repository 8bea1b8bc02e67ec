"""What a Keras user expects of `SimCSE` and `SentenceEncoder`: fit on texts, saving, stock callbacks."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from simcse_tf import (
    CoSENT,
    DevelopmentCallback,
    InfoNCE,
    SentenceEncoder,
    SimCSE,
    STSCallback,
    TripletMargin,
    bundled_pairs,
)
from simcse_tf.data import in_memory
from simcse_tf.errors import UserError
from tests.conftest import SENTENCES, TENSORFLOWS_LINES, WORDS, unchecked

PAIRS = list(zip(SENTENCES[:24], SENTENCES[24:48], strict=True))
TRIPLETS = list(zip(SENTENCES[:20], SENTENCES[20:40], SENTENCES[40:60], strict=True))
GRADED = [(a, b, i % 5 / 2) for i, (a, b) in enumerate(PAIRS)]
CLASSES = [(text, i % 4) for i, text in enumerate(SENTENCES)]


@pytest.fixture
def make(tiny_preset):
    def make(objective=None, jit_compile=False, dropout=0.1, optimizer=None, **options):
        keras.utils.set_random_seed(1)
        objective = objective or InfoNCE(0.1)
        model = SimCSE.from_preset(str(tiny_preset), objective=objective, dropout=dropout, max_length=12, **options)
        model.compile(optimizer or keras.optimizers.AdamW(1e-3), jit_compile=jit_compile)
        return model

    return make


@pytest.fixture(scope="module")
def pairs():
    """30 pairs in the tiny BERT's words: the more words they share, the higher the grade."""
    known = bundled_pairs()
    rng = np.random.default_rng(0)
    a = [" ".join(rng.choice(WORDS[:30], 6)) for _ in range(30)]
    b = [" ".join([*one.split()[: i % 6], *rng.choice(WORDS[:30], 6 - i % 6)]) for i, one in enumerate(a)]
    gold = np.array([float(i % 6) for i in range(30)])
    return type(known)("made", a, b, gold, {"all": slice(0, 30)}, "the test")


class TestTexts:
    @pytest.mark.parametrize(
        ("how", "rows"),
        [("list", SENTENCES[:24]), ("dataset", SENTENCES[:24]), ("array", PAIRS), ("list", TRIPLETS)],
        ids=["list of sentences", "data set of sentences", "array of pairs", "list of triplets"],
    )
    def test_fit_learns_from_them(self, make, rows, how):
        model = make(TripletMargin() if rows is TRIPLETS else None)
        before = model.encoder.encode("a dog")
        data = rows if how == "list" else np.array(rows)
        if how == "dataset":
            data = tf.data.Dataset.from_tensor_slices(data).batch(8)
        history = model.fit(data, batch_size=None if how == "dataset" else 8, epochs=2, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        assert len(history["loss"]) == 2
        assert np.abs(model.encoder.encode("a dog") - before).max() > 1e-4

    def test_columns_of_a_data_set_are_views(self, make):
        columns = tuple(map(list, zip(*PAIRS, strict=True)))
        as_columns = tf.data.Dataset.from_tensor_slices(columns).batch(8)
        as_rows = tf.data.Dataset.from_tensor_slices(PAIRS).batch(8)
        model = make()
        assert model.evaluate(as_columns, verbose=0) == model.evaluate(as_rows, verbose=0)

    def test_a_list_is_shuffled_anew_in_every_epoch(self):
        rows = in_memory.rows(SENTENCES)
        batches = in_memory.batched(rows, len(rows), shuffle_seed=1).take(2)
        orders = [batch[:, 0].tolist() for batch in batches.as_numpy_iterator()]
        given = [text.encode() for text in SENTENCES]
        assert sorted(orders[0]) == sorted(orders[1]) == sorted(given)
        assert orders[0] != orders[1] != given
        assert orders[0] != given

    def test_the_rest_that_fills_no_batch_is_left_out_unless_there_is_no_other(self, make):
        model = make()
        whole = model.evaluate(PAIRS[:16], batch_size=8, verbose=0, return_dict=True)
        assert model.evaluate(PAIRS[:20], batch_size=8, verbose=0, return_dict=True) == whole
        assert np.isfinite(model.evaluate(PAIRS[:5], batch_size=8, verbose=0, return_dict=True)["loss"])

    def test_predict_gives_the_encoders_vectors_in_order(self, make):
        model = make(head="always")
        texts = [*SENTENCES[:9], " ".join(SENTENCES[:4])]  # longer than in training
        expected = model.encoder.encode(texts)
        np.testing.assert_allclose(model.predict(texts, batch_size=4, verbose=0), expected, atol=1e-6)
        pairs = model.predict(PAIRS[:3], verbose=0)
        assert pairs.shape == (3, 2, model.encoder.dim)
        np.testing.assert_allclose(pairs[:, 1], model.encoder.encode([b for _, b in PAIRS[:3]]), atol=1e-6)

    def test_the_number_of_views_may_change_between_calls(self, make):
        model = make()
        for rows in (SENTENCES[:16], [(*row, row[0]) for row in TRIPLETS]):
            assert np.isfinite(model.fit(rows, batch_size=8, verbose=0).history["loss"]).all()
            assert np.isfinite(model.evaluate(rows, batch_size=8, verbose=0)).all()
            assert len(model.predict(rows, verbose=0)) == len(rows)

    def test_texts_of_classes_are_paired_anew_in_every_epoch(self, make):
        model = make(dropout=0.0)
        history = model.fit(CLASSES, batch_size=8, epochs=2, verbose=0, validation_split=0.4).history
        assert np.isfinite(history["loss"]).all()
        assert np.isfinite(history["val_loss"]).all()
        # Of one class in a batch there is nothing that could be a negative.
        two = [("a dog", 1), ("a cat", 1), ("the dog", 1), ("the cat", 1), ("a man", 2), ("a woman", 2)]
        assert model.evaluate(two, batch_size=6, verbose=0, return_dict=True)["loss"] > 0
        source = in_memory.classes(in_memory.rows(CLASSES))
        epochs = [{row[:2] for row in source.rows(seed=3, epoch=epoch)} for epoch in (0, 1)]
        assert {anchor for anchor, _ in epochs[0]} == {anchor for anchor, _ in epochs[1]} == set(SENTENCES)
        assert epochs[0] != epochs[1]

    def test_graded_pairs_from_a_list_and_from_data_sets(self, make):
        model = make(CoSENT(0.1))
        before = model.evaluate(GRADED, batch_size=24, verbose=0, return_dict=True)["loss"]
        *texts, scores = map(list, zip(*GRADED, strict=True))
        for columns in ((*texts, scores), (PAIRS, scores), (tuple(texts), scores)):
            data = tf.data.Dataset.from_tensor_slices(columns).batch(24)
            assert model.evaluate(data, verbose=0, return_dict=True)["loss"] == pytest.approx(before, rel=1e-5)
        assert np.isfinite(model.fit(GRADED, batch_size=8, epochs=2, verbose=0).history["loss"]).all()
        assert len(model.predict(GRADED[:3], verbose=0)) == 3

    @pytest.mark.parametrize(
        ("objective", "rows", "facts"),
        [
            (CoSENT(), PAIRS, ["CoSENT needs", "score"]),
            (CoSENT(), [("a", "b", "c", 1.0)] * 4, ["CoSENT needs", "score"]),
            (InfoNCE(), GRADED, ["InfoNCE", "class", "CoSENT"]),
            (InfoNCE(), [("a dog", 0.5), ("a cat", 1.0)], ["InfoNCE", "whole number"]),
            (TripletMargin(), CLASSES, ["TripletMargin has no use"]),
            (InfoNCE(), [*CLASSES, ("alone", 9)], ["row 60", "label 9"]),
            (InfoNCE(), [("a dog", 3), ("a cat", 3)], ["label 3", "other classes"]),
            (InfoNCE(), [("a dog", 3), ("a cat",)], ["row 1 has 1 text", "row 0 has 1 text and a number"]),
            (CoSENT(), [*GRADED, ("a", "b", float("nan"))], ["row 24", "nan"]),
            (CoSENT(), GRADED[:1], ["at least 2"]),
        ],
    )
    def test_numbers_that_the_objective_cannot_use_are_refused(self, make, objective, rows, facts):
        with pytest.raises(UserError) as e:
            make(objective).fit(rows, verbose=0)
        for fact in facts:
            assert fact in str(e.value)

    def test_a_callback_may_predict_other_texts_between_epochs(self, make):
        model = make()
        predict = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.predict(SENTENCES[:3], verbose=0))
        history = model.fit(PAIRS, batch_size=8, epochs=2, verbose=0, callbacks=[predict]).history
        assert np.isfinite(history["loss"]).all()

    def test_a_split_is_validation_data_and_a_list_is_shuffled_the_same_after_the_same_seed(self, make):
        kwargs = {"batch_size": 8, "epochs": 2, "verbose": 0}
        given = make(dropout=0.0).fit(PAIRS[:16], validation_data=PAIRS[16:], **kwargs).history
        cut = make(dropout=0.0).fit(PAIRS, validation_split=1 / 3, **kwargs).history
        assert given == cut
        assert "val_loss" in given

    @pytest.mark.parametrize(
        ("texts", "facts"),
        [
            ("a dog", ["single string"]),
            ([], ["empty"]),
            (["a dog", 3], ["row 1", "3"]),
            ([float("nan"), "a dog"], ["row 0", "nan"]),
            (["a dog", ("a", "b")], ["row 1", "2 texts", "row 0 has 1"]),
            ([("a", "b"), ("a",)], ["row 1", "row 0 has 2"]),
            ((SENTENCES[:5], SENTENCES[5:10]), ["row 0", "5 texts", "zip"]),
            (tf.data.Dataset.from_tensor_slices(["a dog", "a cat"]), ["batch"]),
            (tf.data.Dataset.from_tensor_slices([[["a"]] * 4] * 4).batch(2), ["4", "views"]),
            (["a dog"], ["at least 2"]),
        ],
    )
    def test_what_is_not_such_texts_is_refused_with_the_place(self, make, texts, facts):
        with pytest.raises(UserError) as e:
            make().fit(texts, verbose=0)
        for fact in facts:
            assert fact in str(e.value)


class TestRefusals:
    @pytest.mark.parametrize("argument", ["loss", "metrics", "loss_weights", "weighted_metrics"])
    def test_compile_takes_no_loss_and_no_metrics(self, make, argument):
        with pytest.raises(ValueError, match=argument):
            make().compile(keras.optimizers.AdamW(1e-3), **{argument: "mse" if argument == "loss" else ["accuracy"]})

    def test_fit_takes_no_targets_and_no_weights(self, make):
        for argument in ("y", "sample_weight", "class_weight"):
            with pytest.raises(ValueError, match=argument):
                make().fit(PAIRS, **{argument: [1] * len(PAIRS)})

    def test_a_length_that_leaves_no_token_and_one_without_positions(self, make, tiny_preset):
        for length in (0, 1, -5, 33):
            with pytest.raises(UserError, match=f"`max_length` {length}"):
                SentenceEncoder.from_preset(str(tiny_preset), max_length=length)
        with pytest.raises(UserError, match="`max_length` 33"):
            SimCSE(make().encoder, max_length=33)

    @pytest.mark.parametrize("setting", [{"dropout_masks": "equal"}, {"chunk_size": 0}])
    def test_a_setting_that_cannot_be(self, make, setting):
        ((name, value),) = setting.items()
        with pytest.raises(UserError, match=f"`{name}` {value}"):
            SimCSE(make().encoder, **setting)


class TestXLA:
    def test_evaluate_predict_and_validation_run_compiled(self, make, no_determinism):
        compiled, usual = make(jit_compile=True, dropout=0.0), make(dropout=0.0)
        kwargs = {"batch_size": 8, "verbose": 0}
        for model in (compiled, usual):
            model.fit(PAIRS[:16], validation_data=PAIRS[16:], shuffle=False, **kwargs)
        assert compiled.jit_compile
        assert compiled.evaluate(PAIRS, **kwargs) == pytest.approx(usual.evaluate(PAIRS, **kwargs), abs=1e-5)
        expected = usual.predict(SENTENCES[:6], **kwargs)
        np.testing.assert_allclose(compiled.predict(SENTENCES[:6], **kwargs), expected, atol=1e-4)


class TestSaving:
    def test_a_saved_model_is_the_same_to_the_bit_and_goes_on_as_it_would_have(self, make, tmp_path):
        model = make(InfoNCE(0.07, 0.5, False), head="always", pooling="avg", chunk_size=4)
        model.fit(PAIRS, batch_size=8, verbose=0)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.objective == model.objective
        assert (loaded.chunk_size, loaded.max_length, loaded.encoder.config) == (4, 12, model.encoder.config)
        np.testing.assert_array_equal(loaded.encoder.encode(SENTENCES), model.encoder.encode(SENTENCES))
        for one in (model, loaded):
            one.fit(PAIRS, batch_size=8, shuffle=False, verbose=0)
        np.testing.assert_array_equal(loaded.encoder.encode(SENTENCES), model.encoder.encode(SENTENCES))

    def test_prompts_are_trained_with_and_saved(self, make, tmp_path):
        prompts = {"query_prompt": "the ", "passage_prompt": "a old "}
        written_out = [tuple(text for text in (f"the {a}", f"a old {b}")) for a, b in PAIRS]
        prompted, usual = make(dropout=0.0, **prompts), make(dropout=0.0)
        # Without dropout a batch's loss depends on its tokens alone.
        assert prompted.evaluate(PAIRS, batch_size=8, verbose=0) == usual.evaluate(written_out, batch_size=8, verbose=0)
        assert usual.evaluate(PAIRS, verbose=0) != usual.evaluate(written_out, verbose=0)
        np.testing.assert_array_equal(
            prompted.predict(SENTENCES[:3], verbose=0), usual.predict(SENTENCES[:3], verbose=0)
        )
        history = prompted.fit(SENTENCES[:16], batch_size=8, verbose=0).history
        assert np.isfinite(history["loss"]).all()
        prompted.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras").encoder
        for name in ("query", "passage", None):
            expected = prompted.encoder.encode(SENTENCES, prompt_name=name)
            np.testing.assert_array_equal(loaded.encode(SENTENCES, prompt_name=name), expected)

    def test_training_goes_on_with_the_presets_head(self, make, tmp_path, tiny_preset):
        make(head="always").encoder.save_to_preset(tmp_path / "preset")
        assert SimCSE.from_preset(str(tmp_path / "preset"), max_length=12).encoder.config.head == "always"
        assert SimCSE.from_preset(str(tiny_preset), max_length=12).encoder.config.head == "train_only"

    def test_an_encoder_alone_as_keras_file_weights_and_preset(self, make, tmp_path, tiny_preset):
        encoder = make(head="always").encoder
        expected = encoder.encode(SENTENCES)
        encoder.save(tmp_path / "encoder.keras")
        np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "encoder.keras").encode(SENTENCES), expected)
        encoder.save_to_preset(tmp_path / "preset")
        np.testing.assert_array_equal(SentenceEncoder.from_preset(str(tmp_path / "preset")).encode(SENTENCES), expected)
        encoder.save_weights(tmp_path / "encoder.weights.h5")
        other = SentenceEncoder.from_preset(str(tiny_preset), head="always")
        other.load_weights(tmp_path / "encoder.weights.h5")
        np.testing.assert_array_equal(other.encode(SENTENCES), expected)

    def test_export_writes_a_saved_model_that_takes_strings(self, make, tmp_path):
        import simcse_tf

        model = make()
        with unchecked():
            assert model.export(tmp_path / "mine") == tmp_path / "mine" / "1"
        served = simcse_tf.load(tmp_path / "mine").encode(SENTENCES[:3])
        np.testing.assert_allclose(served, model.encoder.encode(SENTENCES[:3]), atol=1e-5)
        with pytest.raises(UserError, match="onnx"):
            model.export(tmp_path / "other", format="onnx")

    def test_a_configuration_makes_an_equal_model(self, make):
        model = make(TripletMargin(0.3))
        copy = SimCSE.from_config(json.loads(json.dumps(model.get_config())))
        assert copy.get_config() == model.get_config()

    def test_summary_names_the_encoder(self, make, capsys):
        make().summary()
        assert "sentence_encoder" in capsys.readouterr().out


class TestCallbacks:
    def test_stock_callbacks_select_by_the_score(self, make, pairs, tmp_path):
        model, best = make(), tmp_path / "best.keras"
        history = model.fit(
            SENTENCES,
            batch_size=8,
            epochs=4,
            verbose=0,
            callbacks=[
                STSCallback(pairs),
                keras.callbacks.ModelCheckpoint(best, monitor="val_spearman", mode="max", save_best_only=True),
                keras.callbacks.ModelCheckpoint(tmp_path / "last.weights.h5", save_weights_only=True),
                # No epoch is so much better than the first.
                keras.callbacks.EarlyStopping(
                    "val_spearman", mode="max", min_delta=200, patience=2, restore_best_weights=True
                ),
                keras.callbacks.TensorBoard(tmp_path / "tensorboard"),
                keras.callbacks.CSVLogger(tmp_path / "log.csv"),
                keras.callbacks.ReduceLROnPlateau("val_spearman", mode="max"),
                keras.callbacks.TerminateOnNaN(),
            ],
        ).history
        assert len(history["val_spearman"]) == len(history["val_alignment"]) == len(history["val_uniformity"]) == 3
        assert (tmp_path / "last.weights.h5").is_file()
        assert "val_spearman" in (tmp_path / "log.csv").read_text()
        assert list((tmp_path / "tensorboard" / "validation").glob("events*"))
        from simcse_tf.evaluation.development import Graded
        from simcse_tf.training.callbacks import figures

        saved = figures(keras.saving.load_model(best).encoder, Graded.of(pairs))["spearman"]
        assert saved == max(history["val_spearman"])

    def test_the_figures_of_development_sets_of_any_kind_are_the_evaluations(self, make, pairs):
        from simcse_tf.evaluation import sts
        from simcse_tf.evaluation.retrieval import Retrieval

        model = make(head="always")
        search = Retrieval.from_pairs("search", "the test", list(zip(SENTENCES[:20], SENTENCES[20:40], strict=True)))
        callbacks = [STSCallback(pairs), DevelopmentCallback(search, pairs)]
        logs = model.fit(SENTENCES, batch_size=8, verbose=0, callbacks=callbacks).history
        score = sts.evaluate(model.encoder.encode, pairs).all.spearman
        assert logs["val_spearman"] == logs[f"val_{pairs.name}/spearman"] == [score]
        assert logs["val_spearman"] == logs["val_spearman_with_head"] != logs["val_spearman_without_head"]
        for name, value in search.figures(model.encoder.encode).items():
            assert logs[f"val_{name}"] == [pytest.approx(value)]
        assert logs["val_ndcg@10"] == logs["val_ndcg@10_with_head"]

    def test_sets_that_would_be_logged_as_one_and_what_is_no_set_are_refused_before_training(self, pairs):
        with pytest.raises(UserError, match=f"two development sets are called '{pairs.name}'"):
            DevelopmentCallback(pairs, pairs)
        with pytest.raises(UserError, match="`sets`: a float is not a development set"):
            DevelopmentCallback(0.5)

    def test_pairs_without_a_positive_are_refused_before_training(self, pairs):
        low = type(pairs)("low", pairs.a, pairs.b, pairs.gold * 0.2, pairs.subsets, "the test")
        with pytest.raises(UserError, match="graded above 4"):
            STSCallback(low)

    def test_backup_and_restore_continues_after_the_last_epoch(self, make, tmp_path):
        def copy(epoch, logs):
            if epoch == 2:
                # What a kill would have left.
                shutil.copytree(tmp_path / "backup", tmp_path / "copy")

        def fit(model, backup, *callbacks):
            callbacks = [keras.callbacks.BackupAndRestore(tmp_path / backup), *callbacks]
            model.fit(PAIRS, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks)

        whole, resumed = make(), make()
        fit(whole, "backup", keras.callbacks.LambdaCallback(on_epoch_begin=copy))
        fit(resumed, "copy")
        np.testing.assert_array_equal(resumed.encoder.encode(SENTENCES), whole.encoder.encode(SENTENCES))


def test_one_text_gives_one_vector(make):
    encoder = make().encoder
    vector = encoder.encode("a dog")
    assert vector.shape == (encoder.dim,)
    np.testing.assert_allclose(vector, encoder.encode(["a dog"])[0], atol=1e-7)
    with pytest.raises(UserError, match="text 1 is of type int"):
        encoder.encode(["a dog", 1])


def test_importing_the_package_imports_nothing_heavy_and_every_public_name_is_there(tiny_preset, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    code = (
        "import sys, simcse_tf\n"
        "heavy = {'numpy', 'tensorflow', 'keras'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert set(simcse_tf.__all__) <= set(dir(simcse_tf))\n"
        "for name in simcse_tf.__all__: assert getattr(simcse_tf, name) is not None\n"
        "simcse_tf.load(sys.argv[1]).encode('a dog')\n"
        "try: simcse_tf.nothing\n"
        "except AttributeError as e: print(e)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_preset], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(TENSORFLOWS_LINES, done.stderr), done.stderr
    assert "no attribute 'nothing'" in done.stdout
