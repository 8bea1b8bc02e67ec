"""Trains on triplets (anchor, positive, hard negative), and scores the encoder before and after.

python examples/supervised_triplets.py --triplets triplets.csv --to my_encoder
"""

import argparse

from simcse_tf import AdamW, InfoNCE, SimCSE, evaluate_encoder, open_source

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--triplets", default="bundled:triplets", help="a table with three columns of text")
parser.add_argument("--preset", default="minilm")
parser.add_argument("--steps", type=int, default=10, help="steps of 32 triplets")
parser.add_argument("--to", default="my_encoder", help="a new directory")
flags = parser.parse_args()

triplets = list(open_source(flags.triplets).rows())[: 32 * flags.steps]
# An encoder that averages and was trained without a head goes on without one.
# With a hard negative in every row there is enough to learn at the paper's temperature.
model = SimCSE.from_preset(flags.preset, pooling="avg", head="none", objective=InfoNCE(temperature=0.05))
model.compile(optimizer=AdamW(2e-5, global_clipnorm=1.0))

# Without sts_dir=..., on the bundled pairs: a smoke test.
before = evaluate_encoder(model.encoder)
model.fit(triplets, batch_size=32)
after = evaluate_encoder(model.encoder)
for task, score in after.scores.items():
    print(f"{task}: Spearman x 100 {before.scores[task]:.2f} before, {score:.2f} after")

model.encoder.save_to_preset(flags.to)
