"""`python -m simcse_tf.index` with a stub for a model: no TensorFlow."""

import json
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from simcse_tf import encode, index
from simcse_tf.data.records import open_records
from simcse_tf.errors import UserError
from simcse_tf.serving import vectors
from simcse_tf.serving.index import read_about

pytest.importorskip("faiss", reason="needs faiss: pip install -e '.[dev]'")


class Stub:
    """A model whose vectors depend on the text alone, and on the prompt."""

    def __init__(self, seed=0, prompt_names=(), dim=16):
        self.seed, self.prompt_names, self.dim, self.encoded = seed, prompt_names, dim, []

    def encode(self, texts, *, batch_size=64, prompt_name=None, dtype="float32"):
        self.encoded += texts
        made = []
        for text in texts:
            rng = np.random.default_rng([zlib.crc32(text.encode()), self.seed])
            made.append(rng.normal(size=16) + (0.1 if prompt_name == "query" else 0.2 if prompt_name else 0))
        made = np.array(made, "float32")[:, : self.dim]
        return made / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command in `tmp_path`; returns what it prints as JSON."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, model=None):
        for command in (index, encode):
            monkeypatch.setattr(
                command.loading, "locate", lambda name, dim=None, **_: lambda: model or Stub(dim=dim or 16)
            )
        index.main([str(argument) for argument in arguments])
        out = capsys.readouterr().out
        return json.loads(out) if out.startswith("{") else out

    return run


TABLE = """id,title,text,year
a,One,a dog runs,1999
b,,a cat sits,2001
c,Three,two birds sing,
"""


def ids(found):
    return [answer["id"] for answer in found["results"][0]["answers"]]


def write_table(name="in.csv", content=TABLE):
    Path(name).write_text(content, "utf-8")
    return name


def test_texts_come_back_with_their_ids_and_columns_and_are_filtered_by_them(run):
    made = run("build", write_table(), "--model", "m", "--to", "i")
    assert (made["texts"], made["kind"], made["bits"], made["dim"]) == (3, "flat", 32, 16)
    assert made["columns"] == {"text": "text", "id": "id", "metadata": {"title": "text", "year": "number"}}
    found = run("search", "i", "a cat sits", "a dog runs")
    assert [one["query"] for one in found["results"]] == ["a cat sits", "a dog runs"]
    assert found["results"][0]["answers"][0] == {
        "id": "b",
        "text": "a cat sits",
        "cosine": pytest.approx(1, abs=1e-5),
        "metadata": {"title": None, "year": 2001},
    }
    assert ids(run("search", "i", "a cat sits", "--where", "year < 2000 OR year IS NULL", "--top-k", "1")) != ["b"]
    assert set(ids(run("search", "i", "a cat", "--where", "title LIKE 'T%'"))) == {"c"}
    assert ids(run("search", "i", "a cat sits", "--threshold", "0.99")) == ["b"]


def test_texts_are_added_replaced_and_removed(run):
    run("build", write_table(), "--model", "m", "--to", "i", "--bits", "8")
    write_table("more.csv", "year,text,title,id\n2020,a fox hides,New,d\n,a dog ran,,a\n")
    assert run("add", "i", "more.csv")["texts"] == 4
    assert ids(run("search", "i", "a fox hides", "--top-k", "1")) == ["d"]
    found = run("search", "i", "a dog runs")["results"][0]["answers"]
    assert {answer["text"] for answer in found} == {"a fox hides", "a cat sits", "a dog ran", "two birds sing"}
    again = Stub()
    assert run("add", "i", "more.csv", model=again)["texts"] == 4
    assert not again.encoded
    assert run("remove", "i", "b", "--where", "year = 2020")["texts"] == 2
    assert set(ids(run("search", "i", "a"))) == {"a", "c"}
    # What was removed may be added again.
    assert run("add", "i", "more.csv")["texts"] == 3
    assert run("info", "i")["texts"] == 3


def test_plain_text_is_numbered(run):
    Path("in.txt").write_text("a dog\n\n  the cat \n", "utf-8")
    run("build", "in.txt", "--model", "m", "--to", "i")
    Path("more.txt").write_text("a fox\n", "utf-8")
    run("add", "i", "more.txt")
    answers = run("search", "i", "a fox")["results"][0]["answers"]
    assert {(answer["id"], answer["text"]) for answer in answers} == {("0", "a dog"), ("1", "the cat"), ("2", "a fox")}


def test_json_says_what_a_value_is_and_any_line_which_columns_there_are(run):
    lines = [{"text": "b", "zip": None, "n": None}, {"text": "a", "zip": "01234", "n": 1.5, "ok": True, "tags": ["x"]}]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    made = run("build", "in.jsonl", "--model", "m", "--to", "i")
    assert made["columns"]["metadata"] == {"zip": "text", "n": "number", "ok": "number", "tags": "text"}
    answers = run("search", "i", "a")["results"][0]["answers"]
    assert answers[0]["metadata"] == {"zip": "01234", "n": 1.5, "ok": 1, "tags": '["x"]'}
    assert answers[1]["metadata"] == dict.fromkeys(("zip", "n", "ok", "tags"))


def test_a_cell_is_a_number_only_where_all_are(run):
    write_table("in.csv", "text,a,b,c,d\nx,1,007,1.50,1\ny,-2,008,,one\n")
    run("build", "in.csv", "--model", "m", "--to", "i")
    found = {each["text"]: each["metadata"] for each in run("search", "i", "x")["results"][0]["answers"]}
    assert found["x"] == {"a": 1, "b": "007", "c": 1.5, "d": "1"}
    assert found["y"] == {"a": -2, "b": "008", "c": None, "d": "one"}


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_that_encode_has_written_need_no_model(run, dtype, capsys):
    texts = [f"text {i}" for i in range(25)]
    Path("in.txt").write_text("\n".join(texts[:20]) + "\n\n" + "\n".join(texts[20:]) + "\n", "utf-8")
    run("build", "in.txt", "--model", "m", "--to", "unused")
    flags = [
        "m",
        "--input",
        "in.txt",
        "--output",
        "vectors",
        "--shard-size",
        "7",
        "--batch-size",
        "3",
        "--dtype",
        dtype,
    ]
    encode.loading.locate = lambda *_, **__: lambda: Quantised()
    encode.main(flags)
    capsys.readouterr()
    made = run("build", "in.txt", "--vectors", "vectors", "--to", "i", "--bits", "1")
    assert (made["texts"], made["model"]) == (26, "m")
    found = run("search", "i", "text 21", "--top-k", "1")["results"][0]["answers"][0]
    # Row i belongs to line i, blank lines included.
    assert (found["id"], found["text"], found["cosine"]) == ("22", "text 21", pytest.approx(1, abs=0.02))
    Path("in.txt").write_text("other\n", "utf-8")
    with pytest.raises(UserError, match=r"in.txt: its texts are not those .* vectors are of \(26 then, 1 now\)"):
        run("build", "in.txt", "--vectors", "vectors", "--to", "j")
    assert not Path("j").exists()


class Quantised(Stub):
    def encode(self, texts, *, batch_size=64, prompt_name=None, dtype="float32"):
        from simcse_tf.serving import compact

        return compact.quantized(super().encode(texts, prompt_name=prompt_name), dtype)


def test_fewer_dimensions(run):
    assert run("build", write_table(), "--model", "m", "--to", "i", "--dim", "8")["dim"] == 8
    write_table("more.csv", "id,title,text,year\nz,,a fox hides,\n")
    assert run("add", "i", "more.csv")["texts"] == 4
    assert ids(run("search", "i", "a fox hides", "--top-k", "1")) == ["z"]


def test_with_prompts_texts_are_passages_and_what_is_looked_for_queries(run):
    def model():
        return Stub(prompt_names=("query", "passage"))

    made = run("build", write_table(), "--model", "m", "--to", "i", model=model())
    assert made["prompts"] is True
    write_table("more.csv", "id,title,text,year\nz,,a fox hides,\n")
    run("add", "i", "more.csv", model=model())
    found = run("search", "i", "a fox hides", "--top-k", "1", model=model())["results"][0]["answers"][0]
    query, passage = (model().encode(["a fox hides"], prompt_name=side)[0] for side in ("query", "passage"))
    assert (found["id"], found["cosine"]) == ("z", pytest.approx(float(query @ passage), abs=1e-5))


def test_a_run_that_was_killed_is_continued_and_not_begun_again(run, monkeypatch):
    class Killed(BaseException):
        pass

    class Dies(Stub):
        def encode(self, texts, **how):
            if len(self.encoded) > 10:
                raise Killed
            return super().encode(texts, **how)

    monkeypatch.setattr(vectors, "_CALLS", 1)
    Path("in.txt").write_text("".join(f"text {i}\n" for i in range(20)), "utf-8")
    arguments = ("build", "in.txt", "--model", "m", "--to", "i", "--batch-size", "4")
    with pytest.raises(Killed):
        run(*arguments, model=Dies())
    with pytest.raises(UserError, match="a run before this one was stopped. Continue it with `resume`"):
        run(*arguments)
    with pytest.raises(UserError, match="no index there"):
        run("info", "i")
    again = Stub()
    assert run(*arguments, "--resume", model=again)["texts"] == 20
    assert len(again.encoded) == 4 + 20 - 8
    assert run(*arguments, "--resume") == "i: is complete, with vectors by m\n"
    with pytest.raises(UserError, match="exists. Replace it with `overwrite`"):
        run(*arguments)
    with pytest.raises(UserError, match="it is flat with `bits` 32 and `dim` 16, of other texts, or"):
        run(*arguments, "--resume", "--dim", "8")
    assert run(*arguments, "--overwrite", "--kind", "hnsw")["kind"] == "hnsw"
    assert sorted(path.name for path in Path("i").iterdir() if path.name[0] == ".") == [".lock"]


def test_an_add_that_was_killed_gives_way_to_another(run, monkeypatch):
    run("build", write_table(), "--model", "m", "--to", "i")
    vectors.begin(Path("i/.add/vectors"), vectors.About(3, "0" * 64, 3).of_model("m", Stub().encode(["x"])))
    write_table("more.csv", "id,title,text,year\nz,,a fox hides,\n")
    assert run("add", "i", "more.csv")["texts"] == 4


BAD = [
    (["build", "none.txt", "--model", "m", "--to", "x"], "none.txt: No such file"),
    (["build", "in.csv", "--to", "x"], "give `model`, .* or `vectors`"),
    (["build", "in.csv", "--to", "x", "--model", "m", "--vectors", "v"], "one of the two"),
    (["build", "in.csv", "--to", "x", "--vectors", "v"], "embeddings.json: not a list of vectors"),
    (["build", "in.csv", "--to", "x", "--vectors", "v", "--dim", "3"], "`dim` goes with `model`"),
    (["build", "in.csv", "--to", "i", "--model", "m", "--resume", "--overwrite"], "contradict each other"),
    (["build", "in.csv", "--to", "i", "--model", "m"], "`to` i: exists. Replace it with `overwrite`"),
    (["build", "in.csv", "--to", "mine", "--model", "m"], "mine: holds no index but notes.txt"),
    (["build", "in.csv", "--to", "in.csv", "--model", "m"], "--to in.csv: in.csv is a file"),
    (["build", "in.csv", "--to", "x", "--model", "m", "--text-column", "txt"], "no column 'txt'. Did you mean 'text'"),
    (["build", "in.csv", "--to", "x", "--model", "m", "--id-column", "ID2"], "no column 'ID2'"),
    (["build", "twice.csv", "--to", "x", "--model", "m"], "twice.csv:3: the id 'a' is there for the second time"),
    (["build", "alike.csv", "--to", "x", "--model", "m"], "the column 'year' needs another name"),
    (["build", "which.csv", "--to", "x", "--model", "m"], r"which of its columns \(a, b\) is the text"),
    (["build", "latin.txt", "--to", "x", "--model", "m"], r"latin.txt:2: byte 0xe9"),
    (["build", "empty.csv", "--to", "x", "--model", "m"], "empty.csv:2: 'text' is empty"),
    (["build", "latin.txt", "--to", "x", "--model", "m", "--text-column", "a"], "plain text has none"),
    (["build", "in.csv", "--to", "x", "--model", "m", "--batch-size", "0"], "`batch_size` 0"),
    (["add", "x", "in.csv"], "x: no index there"),
    (["add", "i", "which.csv"], "which.csv: no column 'text'"),
    (["add", "i", "latin.txt"], "plain text has no columns; expected text, id, title, year"),
    (["add", "i", "words.csv"], "words.csv:2: 'year' is \"late\", expected a number"),
    (["remove", "i"], "nothing to remove"),
    (["remove", "i", "a", "zz"], "no text with the id 'zz'. Nothing was removed"),
    (["remove", "x", "a"], "x: no index there"),
    (["search", "i", "q", "--where", "yaer > 3"], "`where` yaer > 3: no such column: yaer"),
    (["search", "i", "q", "--top-k", "0"], "`top_k` 0: must be at least 1"),
    (["search", "x", "q"], "x: no index there"),
    (["info", "mine"], "mine: no index there"),
    (["info", "i", "--json", "no/x.json"], "the directory no does not exist"),
    (["biuld"], "unknown command 'biuld'. Did you mean 'build'"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A directory with an index, and files that are bad in some way."""
    directory = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(index.loading, "locate", lambda *_, **__: Stub)
        index.main(["build", write_table(), "--model", "m", "--to", "i", "--json", "i.json"])
    for name, content in {
        "twice.csv": "id,text\na,x\na,y\n",
        "alike.csv": "text,Year,year\nx,1,2\n",
        "which.csv": "a,b\nx,y\n",
        "empty.csv": "id,text\na,\n",
        "words.csv": "id,title,text,year\nq,,x,late\n",
        "mine/notes.txt": "mine",
    }.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(content, "utf-8")
    (directory / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    return directory


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_input(built, monkeypatch, arguments, message):
    monkeypatch.chdir(built)
    monkeypatch.setattr(index.loading, "locate", lambda *_, **__: Stub)
    with pytest.raises(UserError, match=message):
        index.main(arguments)
    assert not Path("x").exists()
    assert read_about(Path("i")).version == 1


@pytest.mark.parametrize("command", ["add", "search"])
def test_another_model_is_refused_before_it_encodes_the_texts(built, monkeypatch, command):
    monkeypatch.chdir(built)
    other = Stub(seed=1)
    monkeypatch.setattr(index.loading, "locate", lambda *_, **__: lambda: other)
    with pytest.raises(UserError, match=r"i: made by another model \(m: other vectors"):
        index.main([command, "i", "in.csv" if command == "add" else "query"])
    assert read_about(Path("i")).count == 3
    assert "a dog runs" not in other.encoded


@pytest.mark.parametrize("arguments", [("search", "i", "query"), ("add", "i", "in.csv"), ("remove", "i", "a")])
def test_what_is_damaged_is_said_before_a_model_is_loaded(built, tmp_path, monkeypatch, arguments):
    shutil.copytree(built / "i", tmp_path / "i")
    shutil.copy(built / "in.csv", tmp_path)
    monkeypatch.chdir(tmp_path)
    codes = next(Path("i").glob("*-0000/codes.faiss"))
    codes.write_bytes(codes.read_bytes()[:-1])
    monkeypatch.setattr(index.loading, "locate", lambda *_, **__: pytest.fail)
    with pytest.raises(UserError, match=r"i: the index is damaged \(000001-0000/codes.faiss has"):
        index.main(list(arguments))


@pytest.mark.parametrize("arguments", [("search", "i", "query"), ("add", "i", "in.csv")])
def test_a_model_that_is_no_longer_where_it_was_is_named(built, monkeypatch, arguments):
    def locate(model):
        raise UserError(f"unknown preset '{model}'.")

    monkeypatch.chdir(built)
    monkeypatch.setattr(index.loading, "locate", locate)
    with pytest.raises(UserError, match="i: was made by m; name it with `model` .* unknown preset 'm'"):
        index.main(list(arguments))
    with pytest.raises(UserError, match="^unknown preset 'other'"):
        index.main([*arguments, "--model", "other"])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"text": "y", "id": "b"}, "in.jsonl:2: has 'id', and the first row has none"),
        ({"text": "y", "Year": 1}, "in.jsonl:2: the column 'Year' needs another name"),
        ({"text": "y", "": 1}, "in.jsonl:2: a column has no name"),
        ({"txt": "y"}, "in.jsonl:2: no 'text'"),
    ],
)
def test_keys_that_do_not_fit_are_named_with_their_line(tmp_path, second, message):
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, [{"text": "x", "year": 1}, second])), "utf-8")
    with pytest.raises(UserError, match=message):
        open_records(tmp_path / "in.jsonl")


def test_what_is_added_as_json_may_lack_keys_in_some_rows_and_not_in_all(tmp_path):
    (tmp_path / "in.jsonl").write_text('{"text": "x", "year": 1, "tag": "a"}\n', "utf-8")
    layout = open_records(tmp_path / "in.jsonl").layout
    (tmp_path / "more.jsonl").write_text('{"text": "y", "new": 0}\n{"text": "z", "tag": "b", "year": 2}\n', "utf-8")
    records = open_records(tmp_path / "more.jsonl", like=layout)
    assert [record.metadata for record in records.read()] == [(None, None), (2, "b")]
    (tmp_path / "more.jsonl").write_text('{"text": "y", "yaer": 0, "tag": "a"}\n', "utf-8")
    with pytest.raises(UserError, match="no column 'year'. Did you mean 'yaer'"):
        open_records(tmp_path / "more.jsonl", like=layout)


def test_records_of_a_file_can_be_read_again_and_have_encodes_fingerprint(tmp_path):
    (tmp_path / "in.csv").write_text(TABLE, "utf-8")
    records = open_records(tmp_path / "in.csv")
    assert [record.text for record in records.read()] == ["a dog runs", "a cat sits", "two birds sing"]
    assert list(records.read()) == list(records.read())
    (tmp_path / "in.txt").write_text("a dog runs\na cat sits\ntwo birds sing\n", "utf-8")
    assert open_records(tmp_path / "in.txt").texts_sha256 == records.texts_sha256
