"""Trains on plain sentences under Keras' `fit`, and keeps the best epoch.

python examples/keras_fit.py --texts sentences.txt --to best.keras
"""

import argparse

import keras

from simcse_tf import InfoNCE, SimCSE, STSCallback, bundled_pairs, open_source

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--texts", default="bundled", help="a file with a sentence a line")
parser.add_argument("--preset", default="minilm")
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--steps", type=int, default=13, help="steps of 64 sentences an epoch")
parser.add_argument("--to", default="best.keras")
flags = parser.parse_args()

texts = [text for (text,) in open_source(flags.texts).rows()][: 64 * flags.steps]
model = SimCSE.from_preset(flags.preset, pooling="avg", objective=InfoNCE(temperature=0.1))
model.compile(optimizer=keras.optimizers.AdamW(3e-5))

# The loss falls whether or not the encoder gets better; the correlation with graded pairs says which.
scores = STSCallback(bundled_pairs())
best = keras.callbacks.ModelCheckpoint(flags.to, monitor="val_spearman", mode="max", save_best_only=True)
model.fit(texts, batch_size=64, epochs=flags.epochs, callbacks=[scores, best])

kept = keras.saving.load_model(flags.to)
print(kept.encoder.encode(["Text in, unit vector out."]).shape)
