"""Finds the sentences that are nearest to a query. Needs the extra `index`.

python examples/search.py "Who plays music?" --texts sentences.txt --model saved_models/quickstart

The model may also be a run, a preset, or the address of TF Serving: http://localhost:8501/v1/models/quickstart.
"""

import argparse

import simcse_tf

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("query")
parser.add_argument("--texts", default="bundled", help="a file with a sentence a line")
parser.add_argument("--model", default="minilm")
parser.add_argument("--top-k", type=int, default=5)
flags = parser.parse_args()

model = simcse_tf.load(flags.model)
# Sentences are streamed: a file of any length will do. to="DIRECTORY" keeps the index for model.load_index.
model.build_index(text for (text,) in simcse_tf.open_source(flags.texts).rows())
for sentence, cosine in model.search(flags.query, top_k=flags.top_k, threshold=0.0):
    print(f"{cosine:.3f}  {sentence}")
