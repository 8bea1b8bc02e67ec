"""Trains on triplets (anchor, positive, hard negative), and scores the encoder before and after.

python examples/supervised_triplets.py --triplets triplets.csv --to my_encoder
"""

import argparse

from simcse_tf import AdamW, InfoNCE, SimCSE, bundled_pairs, evaluate_encoder, open_source

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--triplets", default="bundled:triplets", help="a table with three columns of text")
parser.add_argument("--preset", default="minilm")
parser.add_argument("--steps", type=int, default=10, help="steps of 32 triplets")
parser.add_argument("--to", default="my_encoder", help="a new directory")
flags = parser.parse_args()

triplets = list(open_source(flags.triplets).rows())[: 32 * flags.steps]
# An encoder that averages and was trained without a head goes on without one.
model = SimCSE.from_preset(flags.preset, pooling="avg", head="none", objective=InfoNCE(temperature=0.05))
model.compile(optimizer=AdamW(2e-5, global_clipnorm=1.0))

before = evaluate_encoder(model.encoder.encode, bundled_pairs())
model.fit(triplets, batch_size=32)
after = evaluate_encoder(model.encoder.encode, bundled_pairs())
print(f"Spearman x 100: {before.all.spearman:.2f} before, {after.all.spearman:.2f} after")

model.encoder.save_to_preset(flags.to)
