"""Trains a tiny model with one replica and with several, and prints losses and weights of both as JSON.

A process of its own, because logical devices are fixed when TensorFlow starts. Arguments: preset, directory of data
files, replicas.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from simcse_tf.config import TrainConfig
from simcse_tf.data import sources
from simcse_tf.data.pipeline import Feed, token_batches
from simcse_tf.formats import presets
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.training import loop

preset, directory, replicas = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
CONFIG = TrainConfig(temperature=0.1, learning_rate=1e-3, clip_norm=0.5, max_length=12)


class Logs(keras.callbacks.Callback):
    """Collects what every step reports."""

    def on_train_begin(self, logs=None):
        self.losses, self.false_negatives = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(float(logs["loss"]))
        self.false_negatives.append(int(logs["false_negatives"]))


def train(data, strategy, chunk_size=None, *, rate=None, texts=False, taught=(), **settings):
    keras.utils.set_random_seed(1)
    config, source = replace(CONFIG, chunk_size=chunk_size, **settings), sources.open_source(str(directory / data))
    with strategy.scope():
        encoder = load_encoder(presets.locate(preset), config.encoder(), dropout=0.0)
        model = loop.simcse(encoder, config, taught[0].shape[1] if taught else None)
        # Unlike AdamW and clipping, plain descent shows the gradients' size.
        optimizer = keras.optimizers.SGD(rate) if rate else loop.optimizer(config, 5, strategy)
        model.compile(optimizer=optimizer, jit_compile=False)
    logs, vectors = Logs(), np.zeros(0)
    if texts:
        rows = list(source.rows())
        model.fit(rows, batch_size=8, epochs=2, verbose=0, validation_data=rows[:8], callbacks=[logs])
        logs.losses += model.history.history["val_loss"]
        vectors = model.predict([row[0] for row in rows[:5]], verbose=0)
    else:
        feed = Feed(source, batch_size=8, seed=0, teacher=taught)
        repeated = loop.repetition(config, 0)
        batches = token_batches(feed, encoder.tokenizer, max_length=config.max_length, repetition=repeated)
        model.fit(batches, steps_per_epoch=5, verbose=0, shuffle=False, callbacks=[logs])
    weights = np.concatenate([np.ravel(v) for v in (*model.trainable_variables, vectors)])
    return {"losses": logs.losses, "false_negatives": logs.false_negatives, "weights": weights.tolist()}


def weighted(strategy, **settings):
    return train("negatives.csv", strategy, hard_negative_weight=0.3, **settings)


def every_kind(strategy, chunk_size):
    sizes = {"matryoshka": (16, 8, 4), "matryoshka_weights": (1.0, 0.5, 2.0)}
    everything = {"negatives": ("queue:12", "mixed", "off_dropout"), "learn_temperature": True, "word_repetition": 0.5}
    everything["add"] = ("dimensions", "align_uniform")
    # A teacher of another size, and all that is learned from it.
    vectors = [np.random.default_rng(view).normal(size=(30, 5)).astype("float32") for view in range(4)]
    learned = {"teacher": "it", "teach": ("vectors", "listwise", "mask"), "add": ("consistency",)}
    return {
        "texts": weighted(strategy, texts=True),
        "classes": train("classes.csv", strategy, chunk_size, **sizes),
        "graded": train("graded.csv", strategy, chunk_size, rate=0.02, loss="cosent"),
        "everything": train("sentences.txt", strategy, chunk_size, rate=0.02, **everything),
        "taught": train("negatives.csv", strategy, chunk_size, rate=0.02, taught=vectors, **learned),
    }


one, several = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
assert several.num_replicas_in_sync == replicas
if replicas == 2:
    # Two replicas in chunks against one with the whole batch.
    results = {"one": every_kind(one, None), "several": every_kind(several, 2)}
else:
    results = {name: {"negatives": weighted(strategy)} for name, strategy in (("one", one), ("several", several))}
json.dump(results, sys.stdout)
