"""examples/vector_database.py with Milvus Lite and LanceDB, over what `simcse_tf.encode` writes."""

import json
import re
import runpy
import zlib
from pathlib import Path

import numpy as np
import pytest

import simcse_tf
from simcse_tf import encode
from simcse_tf.serving import compact

pytestmark = pytest.mark.interop
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "vector_database.py"
ROWS = [
    {"id": f"row {i}", "text": f"topic {i % 40} text {i}", "year": 1980 + i % 50, "price": i / 4, "tag": "ab"[i % 2]}
    for i in range(2000)
]


class Stub:
    """A model with prompts, of which texts of one topic are near to each other."""

    prompt_names = ("query", "passage")
    sizes = ()
    prompts = ()

    def encode(self, texts, *, batch_size=64, prompt_name=None, dtype="float32"):
        def normal(text):
            return np.random.default_rng(zlib.crc32(text.encode())).normal(size=32)

        self.prompts = (*self.prompts, prompt_name)
        vectors = np.array([normal(text.partition(" text")[0]) + normal(text) for text in texts])
        return compact.quantized((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("float32"), dtype)


@pytest.fixture(params=["texts.db", "texts"], ids=["milvus", "lancedb"])
def database(request, tmp_path, monkeypatch):
    """The example's functions and the name of a database."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(encode.loading, "locate", lambda name, **_: Stub)
    example = runpy.run_path(str(EXAMPLE))
    # So that there is an index to be searched.
    monkeypatch.setattr(example["Lance"], "_INDEXED", 1000)

    class Database:
        opened = property(lambda self: example["connect"](request.param))
        # Each has a language of its own.
        equal = "==" if request.param == "texts.db" else "="

        def run(self, *arguments):
            example["main"]([request.param, *arguments])

    return Database()


def encoded(rows, name, *flags, model="some/model"):
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    encode.main([model, "--input", "in.jsonl", "--output", name, "--prompt-name", "passage", *flags])
    return name


def recall(database, where="", allowed=True):
    """The part of the 10 rows nearest to each query that is found; all that is found has its columns and cosine."""
    vectors, opened, found = Stub().encode([row["text"] for row in ROWS]), database.opened, 0
    for query in Stub().encode([f"topic {i} text new" for i in range(20)]):
        scores = np.where(allowed, vectors @ query, -2)
        answers = opened.search(query, 10, where)
        found += len({row["id"] for _, row in answers} & {ROWS[i]["id"] for i in np.argsort(-scores)[:10]})
        for score, row in answers:
            number = int(row["id"].split()[1])
            assert row == ROWS[number]
            assert score == pytest.approx(scores[number], abs=0.01)
    return found / 200


@pytest.mark.parametrize("flags", [(), ("--dtype", "int8", "--shard-size", "700")], ids=["float32", "int8 in shards"])
def test_the_answers_are_those_of_a_flat_search(database, capsys, flags):
    database.run("load", encoded(ROWS, "x.parquet", *flags))
    assert re.fullmatch(r"2,000 rows  \d+\.\d s", capsys.readouterr().out.splitlines()[-1])
    assert recall(database) >= 0.95
    allowed = np.array([row["year"] >= 2000 and row["tag"] == "a" for row in ROWS])
    assert recall(database, f"year >= 2000 AND tag {database.equal} 'a'", allowed) >= 0.95


def test_rows_are_replaced_and_removed_and_the_others_stay(database, capsys):
    database.run("load", encoded(ROWS, "x.parquet"))
    new = [ROWS[7] | {"text": "topic new", "year": 2050}, ROWS[0] | {"id": "new"}]
    database.run("load", encoded(new, "y.parquet"))
    assert capsys.readouterr().out.splitlines()[-1].startswith("2,001 rows")
    (query,) = Stub().encode(["topic new"])
    ((score, row),) = database.opened.search(query, 1, "")
    assert (row, score) == (new[0], pytest.approx(1, abs=0.01))
    database.run("remove", "--where", "year < 2000")
    assert capsys.readouterr().out.startswith("1,201 rows")
    assert all(row["year"] >= 2000 for _, row in database.opened.search(query, 100, ""))


def test_a_query_is_encoded_by_the_model_of_the_rows_with_its_query_prompt(database, capsys, monkeypatch):
    database.run("load", encoded(ROWS[:50], "x.parquet"))
    capsys.readouterr()
    asked, model = [], Stub()
    monkeypatch.setattr(simcse_tf, "load", lambda name: asked.append(name) or model)
    database.run("search", ROWS[3]["text"], "--top-k", "2")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == f"1.000  {ROWS[3]}"
    assert (asked, model.prompts) == (["some/model"], ("query",))


def test_what_cannot_be_compared_is_refused(database):
    with pytest.raises(simcse_tf.UserError, match="nothing has been loaded there"):
        database.run("search", "a query")
    database.run("load", encoded(ROWS[:50], "x.parquet"))
    with pytest.raises(simcse_tf.UserError, match="encoded by other/model, but what is in .* by some/model"):
        database.run("load", encoded(ROWS[:50], "y.parquet", model="other/model"))
    with pytest.raises(simcse_tf.UserError, match="vectors of 1 bit"):
        database.run("load", encoded(ROWS[:50], "z.parquet", "--dtype", "binary"))
