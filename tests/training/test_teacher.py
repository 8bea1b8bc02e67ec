"""Learning from a teacher: its vectors are computed once and belong to their rows, whatever stops the run meanwhile."""

import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks import tiny
from simcse_tf import Distillation, InfoNCE, RankConsistency, SentenceEncoder, WithTerms, train
from simcse_tf.config import EncoderConfig, TrainConfig
from simcse_tf.errors import UserError
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.serving import vectors
from simcse_tf.training.loop import objective
from simcse_tf.training.plan import plan
from simcse_tf.training.simcse import SimCSE
from tests.conftest import SENTENCES, VOCABULARY
from tests.training.test_gradcache import ROWS, assert_equal, batch, flat
from tests.training.test_train import assert_equal_states, killed_after, state

DIM = 24


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Another size, another vocabulary, and a pooler of its own."""
    directory = tmp_path_factory.mktemp("teacher") / "preset"
    words = VOCABULARY[5:]
    tiny.make_preset(directory, [*VOCABULARY[:5], *reversed(words)], layers=1, dim=DIM)
    return directory


@pytest.fixture
def flags(tiny_preset, teacher, tmp_path):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("anchor,positive\n" + "".join(f"{a},{b}\n" for a, b in itertools.pairwise(SENTENCES)))
    flags = ["--preset", str(tiny_preset), "--teacher", str(teacher), "--data", str(pairs), "--dev", "bundled"]
    flags += ["--head", "none", "--batch-size", "8", "--max-length", "12", "--max-steps", "6", "--eval-every", "3"]
    return [*flags, "--learning-rate", "1e-3", "--export-to", "None", "--no-report", "--output-dir"]


class Killed(BaseException):
    """The end of a process, as far as the files are concerned."""


def test_a_run_stopped_while_its_teacher_reads_and_in_training_continues_to_the_same_weights(
    capsys, flags, teacher, tmp_path, monkeypatch
):
    flags = [*flags[:-1], "--teach", "vectors", "listwise", "mask", "--layers", "1", flags[-1]]
    whole, run, killed = (tmp_path / name for name in ("whole", "run", "killed"))
    monkeypatch.setattr(vectors, "_CALLS", 1)
    monkeypatch.setattr(train, "_TEACHERS_BATCH", 16)
    train.main([*flags, str(whole)])
    result = json.loads(capsys.readouterr().out)

    encoded, append = [], vectors._append

    def counted(directory, about, rows):
        encoded.append(len(rows))
        if len(encoded) == 7:  # of 59 anchors and 59 positives, 16 at a time, the third block of positives is lost
            raise Killed
        return append(directory, about, rows)

    monkeypatch.setattr(vectors, "_append", counted)
    with pytest.raises(Killed):
        train.main([*flags, str(run), "--resume"])
    with killed_after(4, run, killed):
        train.main([*flags, str(run), "--resume", "--save-every", "1"])
    assert sum(encoded) == 2 * 59 + 16  # only what was lost is encoded again
    train.main([*flags, str(killed), "--resume"])
    assert sum(encoded) == 2 * 59 + 16
    for each in (run, killed):
        assert_equal_states(each, whole)

    encoder = load_encoder(presets.locate(str(teacher)))
    for place, name in enumerate(("anchor", "positive")):
        kept = np.load(next((whole / "teacher" / name).glob("*.npy")))
        texts = [row[place] for row in itertools.pairwise(SENTENCES)]
        np.testing.assert_allclose(kept, encoder.encode(texts), atol=1e-6)
    # The projection is a part of the state and not of the encoder.
    assert any(name.endswith(f"kernel/16x{DIM}") for name in state(whole))
    assert load_encoder(presets.locate(str(whole))).encode("a dog").shape == (16,)
    assert result["steps"] == 6

    monkeypatch.undo()
    monkeypatch.setattr(train.loading, "locate", None)  # what is complete needs no teacher
    train.main([*flags, str(whole), "--resume"])


def test_another_teacher_of_the_same_name_is_noticed(flags, teacher, tmp_path, monkeypatch):
    """The directory holds other weights now."""

    def killed(*_, **__):
        raise Killed

    run = str(tmp_path / "run")
    monkeypatch.setattr(SimCSE, "fit", killed)
    with pytest.raises(Killed):
        train.main([*flags, run])
    encode = train.Indexer.encode

    def other(self, *arguments, **keywords):
        self._fingerprint = self._fingerprint[:, ::-1].copy()
        return encode(self, *arguments, **keywords)

    monkeypatch.setattr(train.Indexer, "encode", other)
    with pytest.raises(UserError, match=r"run/teacher/anchor: begun with another model"):
        train.main([*flags, run, "--resume"])


def test_single_texts_teach_without_a_contrastive_loss(flags, sentences_file, tmp_path):
    """Each is encoded once a step, and the student comes nearer to its teacher."""
    flags = [*flags, str(tmp_path / "run"), "--data", str(sentences_file), "--loss", "none", "--dropout", "0"]
    flags += ["--teach", "vectors", "listwise"]
    train.main([*flags, "--epochs", "5", "--max-steps", "None", "--learning-rate", "1e-2"])
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()]
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert {line["false_negatives"] for line in metrics if "loss" in line} == {0}


def test_a_translation_has_the_vector_of_its_text(flags, tmp_path):
    train.main([*flags, str(tmp_path / "run"), "--translations", "--loss", "none", "--max-steps", "2"])
    assert [path.name for path in (tmp_path / "run" / "teacher").iterdir()] == ["anchor"]


@pytest.mark.parametrize("chunk_size", [2, 4])
def test_in_chunks_encoder_and_projection_have_the_plain_steps_gradients(tiny_origin, chunk_size):
    keras.utils.set_random_seed(1)
    encoder = load_encoder(tiny_origin, EncoderConfig("cls", "none"), dropout=0.0)
    learned = WithTerms(Distillation(InfoNCE(0.5, mask_margin=0.1), 3.0, 2.0), [RankConsistency()])
    models = [SimCSE(encoder, learned, chunk_size=size, projection=DIM) for size in (None, chunk_size)]
    models[1].projection.set_weights(models[0].projection.get_weights())
    data = batch(3) | {"teacher": tf.random.stateless_normal([ROWS, 3, DIM], [0, 1])}
    found = []
    for model in models:
        model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
        found.append(tf.function(model.gradients)(data))
    (expected, expected_logs), (gradients, logs) = found
    assert_equal(gradients, expected)
    assert [g.shape for g in gradients] == [v.shape for v in models[1].trainable_variables]
    assert np.linalg.norm(flat(gradients[-1:])) > 1e-3
    np.testing.assert_allclose(logs["loss"], expected_logs["loss"], rtol=1e-6)


def test_keras_saves_the_projection_with_the_model(tiny_preset, tmp_path):
    model = SimCSE(load_encoder(presets.locate(str(tiny_preset))), Distillation(), projection=DIM)
    model.compile(keras.optimizers.SGD(0.1))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.projection.get_weights()[0], model.projection.get_weights()[0])
    assert loaded.objective == Distillation()


def test_fit_on_a_list_learns_from_any_encoder_without_training_it(tiny_preset, teacher):
    guide = SentenceEncoder.from_preset(str(teacher), pooling="avg")
    keras.utils.set_random_seed(1)
    learned = Distillation(InfoNCE(0.5, mask_margin=0.1), 3.0)
    model = SimCSE.from_preset(
        str(tiny_preset), head="none", layers=(1,), dropout=0.0, max_length=12, objective=learned, teacher=guide
    )
    assert model.projection.units == DIM
    assert len(model.trainable_variables) == len(model.encoder.trainable_variables) + 1
    model.compile(keras.optimizers.AdamW(1e-2), jit_compile=False)
    rows = list(itertools.pairwise(SENTENCES))
    history = model.fit(rows, batch_size=12, epochs=5, validation_data=rows[:12], verbose=0).history
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]
    assert model.predict(rows[:3], verbose=0).shape == (3, 2, 16)
    for wrong in (
        tf.data.Dataset.from_tensor_slices(SENTENCES).batch(8),
        [(text, i % 4) for i, text in enumerate(SENTENCES)],
    ):
        with pytest.raises(UserError, match="the teacher reads lists of sentences, pairs or triplets"):
            model.fit(wrong, verbose=0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, InfoNCE(0.05)),
        ({"teacher": "x", "teach": ("mask:0.1",)}, InfoNCE(0.05, mask_margin=0.1)),
        ({"add": ("consistency:2",)}, WithTerms(InfoNCE(0.05), [RankConsistency()], [2.0])),
        ({"teacher": "x", "loss": "none"}, Distillation()),
        ({"teacher": "x", "loss": "none", "teach": ("vectors:3", "listwise:2")}, Distillation(None, 3.0, 2.0)),
        (
            {"teacher": "x", "teach": ("mask", "listwise"), "student_temperature": 0.1},
            Distillation(InfoNCE(0.05, mask_margin=0.0), 0.0, 1.0, temperature=0.1),
        ),
    ],
)
def test_settings_become_an_objective(settings, expected):
    config = TrainConfig(head="none", **settings)
    config.validate()
    assert objective(config) == expected


DOCUMENT = "One is here. Two is there. Three is far. Four is near.\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": None, "loss": "none"}, "`loss` none: there is nothing to learn from. Name a `teacher`"),
        ({"teacher": None, "teach": ("mask",)}, "`teach` mask: there is no teacher"),
        ({"teacher": None, "translations": True}, "`translations`: there is no teacher"),
        ({"loss": "cosent"}, "`teacher` minilm: `loss` cosent learns from scores"),
        (
            {"loss": "triplet", "teach": ("mask",)},
            "`teach` mask: leaves negatives out of `loss` infonce, not of triplet",
        ),
        ({"teach": ()}, "`teacher` minilm: nothing is learned from it"),
        ({"teach": ("vektors",)}, "`teach` vektors: unknown. Did you mean 'vectors'"),
        ({"head": "train_only"}, "`head` train_only the head would learn them"),
        ({"teach": ("vectors:0",)}, r"`teach` 0.0: must be above 0 \(the number of vectors\)"),
        ({"teach": ("mask:-1",)}, "`teach` -1.0: must be at least 0"),
        ({"mask_relative_margin": -1.0}, "`mask_relative_margin` -1.0: must be at least 0"),
        ({"mask_relative_margin": 0.1}, "`mask_relative_margin` 0.1: a part of `teach` mask"),
        ({"teacher_temperature": 0.1}, "`teacher_temperature` 0.1: a part of `teach` listwise"),
        ({"loss": "triplet", "teach": ("listwise",), "batch_size": 1}, "`batch_size` 1: the teacher's similarities"),
        ({"layers": (1,), "pooling": "avg_top2"}, "`layers` 1: `pooling` avg_top2 reads two layers"),
        ({"layers": (3,)}, r"`layers` 3: must be at least 1 and at most 2 \(.*preset has 2\)"),
        ({"layers": (1, 0)}, "`layers` 1 0: expected places from 0 to 1 in rising order"),
        ({"data": "documents.txt"}, "reads every row once, .*the crops of its documents are drawn anew"),
        ({"data": "classes.csv"}, "reads every row once, .*the pairs of its classes are drawn anew"),
        ({"translations": True}, "`translations`: needs a text and its translation .*has 1 text column"),
    ],
)
def test_what_cannot_be_learned_is_refused_before_tensorflow_is_needed(
    tiny_preset, tmp_path, monkeypatch, settings, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "documents.txt").write_text(DOCUMENT * 3)
    (tmp_path / "classes.csv").write_text("text,label\na,x\nb,x\nc,y\nd,y\n")
    if settings.get("data") == "documents.txt":
        settings = settings | {"data": "documents:documents.txt"}
    given = {"teacher": "minilm", "head": "none", "preset": str(tiny_preset), "output_dir": tmp_path / "run"}
    with pytest.raises(UserError, match=message):
        plan(TrainConfig(**(given | settings)))


def test_a_teacher_that_is_not_there_is_named(flags, tmp_path):
    with pytest.raises(UserError, match="^`teacher`: unknown preset 'minilmm'. Did you mean 'minilm'"):
        train.main([*flags, str(tmp_path / "run"), "--teacher", "minilmm"])
    assert not (tmp_path / "run").exists()
