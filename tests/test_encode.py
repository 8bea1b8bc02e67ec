import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from simcse_tf import encode, export
from simcse_tf.errors import UserError
from simcse_tf.formats import presets, savedmodel
from simcse_tf.formats.encoders import load_encoder
from simcse_tf.serving import compact, vectors
from tests.conftest import SENTENCES, TENSORFLOWS_LINES, unchecked


@pytest.fixture(scope="module")
def saved_model(tiny_preset, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "tiny"
    with unchecked():
        export.main([str(tiny_preset), "--to", str(directory), "--pooling", "avg", "--max-length", "16"])
    return directory


def test_the_export_command_numbers_versions(saved_model, tiny_preset, capsys, monkeypatch):
    assert (saved_model / "1" / "saved_model.pb").is_file()
    graph = saved_model / "1" / "saved_model.pb"
    monkeypatch.setattr(savedmodel, "_write", lambda _, directory: shutil.copy(graph, directory))
    with unchecked():
        export.main([str(tiny_preset), "--to", str(saved_model)])
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(saved_model / "2")


def test_row_i_belongs_to_line_i(tiny_preset, saved_model, tmp_path):
    lines = [*SENTENCES[:10], "", "caf\u00e9 \U0001f600", "dog " * 50]
    (tmp_path / "in.txt").write_text("\n".join(lines) + "\n", "utf-8")
    model = str(saved_model / "1")
    encode.main(
        [model, "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out.npy"), "--batch-size", "4"]
    )
    vectors = np.load(tmp_path / "out.npy")
    from simcse_tf.config import EncoderConfig

    live = load_encoder(presets.locate(str(tiny_preset)), EncoderConfig("avg", "none", 16))
    np.testing.assert_allclose(vectors, live.encode(lines), atol=1e-5)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_command_line_runs_on_a_preset_and_says_nothing_of_tensorflows(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    (tmp_path / "in.txt").write_text("a dog\nthe cat\n", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "simcse_tf.encode", str(tiny_preset), "--input", "in.txt", "--output", "out.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.npy: 2 x 16\n"
    assert not re.search(TENSORFLOWS_LINES, done.stderr), done.stderr
    assert np.load(tmp_path / "out.npy").shape == (2, 16)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--input", "none.txt", "--output", "x.npy"], "--input none.txt: no such file"),
        (["--input", "in.txt", "--output", "x.csv"], "must end in .npy or .parquet. For a directory give --shard-size"),
        (["--input", "in.txt", "--output", "x.npy", "--shard-size", "9"], "with --shard-size it is a directory"),
        (["--input", "in.txt", "--output", "x", "--shard-size", "0"], "--shard-size 0: must be at least 1"),
        (
            ["--input", "in.txt", "--output", ".", "--shard-size", "9", "--overwrite"],
            "was not written by this command",
        ),
        (["--input", "in.txt", "--output", "x.npy", "--overwrite", "--resume"], "contradict each other"),
        (["--input", "in.txt", "--output", "no/x.npy"], "the directory no does not exist"),
        (["--input", "in.txt", "--output", "old.npy"], "exists. Replace it with --overwrite"),
        (["--input", "in.txt", "--output", "x.npy", "--batch-size", "0"], "--batch-size 0: must be at least 1"),
        (["--input", "empty.txt", "--output", "x.npy"], r"empty.txt: empty \(0 lines\)"),
        (["--input", "latin.txt", "--output", "x.npy"], r"latin.txt:2: byte 0xe9 at position 4"),
        (["--input", "in.txt", "--output", "x.npy", "--prompt-name", "query"], "this model has no prompts"),
        (["--input", "in.txt", "--output", "x.npy", "--dim", "17"], "`dim` 17: the vectors of this encoder have 16"),
        (["--input", "in.txt", "--output", "x.npy", "--dim", "0"], "`dim` 0: must be at least 1"),
    ],
)
def test_bad_input(tiny_preset, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.txt").write_text("a dog\n", "utf-8")
    (tmp_path / "old.npy").write_bytes(b"x")
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "latin.txt").write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(UserError, match=message):
        encode.main([str(tiny_preset), *flags])
    assert (tmp_path / "old.npy").read_bytes() == b"x"
    assert not (tmp_path / "x.npy").exists()


def test_no_model_there(tmp_path):
    (tmp_path / "in.txt").write_text("a\n", "utf-8")
    with pytest.raises(UserError, match="no such directory"):
        encode.main(["./nowhere", "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "x.npy")])


class Killed(BaseException):
    """The end of a process, as far as the files are concerned."""


class Stub:
    """A model whose vectors depend on the text alone; is killed at its `dies_at`-th call."""

    def __init__(self, seed=0, dim=5, dies_at=0):
        self.seed, self.dim, self.left = seed, dim, dies_at

    def encode(self, texts, *, batch_size=64, prompt_name=None, dtype="float32"):
        texts = [f"{prompt_name}: {text}" for text in texts] if prompt_name else texts
        self.left -= 1
        if self.left == 0:
            raise Killed
        rows = [np.random.default_rng(zlib.crc32(text.encode()) + self.seed).normal(size=self.dim) for text in texts]
        return compact.quantized(np.array(rows, "float32"), dtype)


LINES = [f"line {i}" for i in range(50)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command in `tmp_path` with a stub for a model, 4 texts to a call and 4 to a block, over LINES."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vectors, "_CALLS", 1)
    Path("in.txt").write_text("".join(f"{line}\n" for line in LINES), "utf-8")

    def run(*flags, model=None, lines=None, killed=False):
        monkeypatch.setattr(encode.loading, "locate", lambda name, **_: lambda: model or Stub())
        if lines is not None:
            Path("in.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        arguments = ["some/model", "--input", "in.txt", "--batch-size", "4", *flags]
        if not killed:
            return encode.main(arguments)
        with pytest.raises(Killed):
            encode.main(arguments)
        return None

    return run


EXPECTED = Stub().encode(LINES)
ONE = ("--output", "x.npy")
SHARDS = ("--output", "x", "--shard-size", "11")
PARTS = ("--output", "x.parquet", "--shard-size", "11")


def written(output):
    if output.suffix == ".parquet":
        return np.stack(pyarrow.parquet.read_table(output)["vector"].to_numpy())
    if not output.is_dir():
        return np.load(output, mmap_mode="r")
    about = json.loads((output / "embeddings.json").read_text())
    arrays = [np.load(output / shard["file"], mmap_mode="r") for shard in about["shards"]]
    assert [len(array) for array in arrays] == [shard["rows"] for shard in about["shards"]]
    assert {p.name for p in output.iterdir()} == {"embeddings.json", *(shard["file"] for shard in about["shards"])}
    return np.concatenate(arrays)


@pytest.mark.parametrize("flags", [ONE, SHARDS, PARTS])
class TestResume:
    @pytest.mark.parametrize("moment", [1, 2, 3, 8, 14])
    def test_a_run_that_was_killed_gives_the_same_array(self, run, flags, moment):
        run(*flags, model=Stub(dies_at=moment), killed=True)
        assert not Path(flags[1]).exists()
        run(*flags, "--resume")
        np.testing.assert_array_equal(written(Path(flags[1])), EXPECTED)
        assert [p.name for p in Path().iterdir() if p.name.startswith(".")] == []

    @pytest.mark.parametrize("moment", [1, 2, 5, 14])
    def test_a_kill_between_writing_rows_and_recording_them_loses_nothing(self, run, flags, moment, monkeypatch):
        calls = 0

        def recorded(path, text):
            nonlocal calls
            calls += 1
            if calls == moment:
                for array in path.parent.glob("*.npy"):
                    array.write_bytes(array.read_bytes() + b"torn")
                raise Killed
            write_whole(path, text)

        write_whole = vectors.write_whole
        monkeypatch.setattr(vectors, "write_whole", recorded)
        run(*flags, killed=True)
        monkeypatch.setattr(vectors, "write_whole", write_whole)
        run(*flags, "--resume")
        np.testing.assert_array_equal(written(Path(flags[1])), EXPECTED)

    def test_only_what_is_missing_is_encoded(self, run, flags):
        run(*flags, model=Stub(dies_at=11), killed=True)
        again = Stub()
        run(*flags, "--resume", model=again)
        # The probes, and 4 of the 13 blocks.
        assert -again.left == 1 + 4

    def test_what_a_killed_run_left_is_not_thrown_away_unasked(self, run, flags):
        run(*flags, model=Stub(dies_at=5), killed=True)
        with pytest.raises(UserError, match="stopped after 12 of 50 texts. Continue it with --resume, or discard it"):
            run(*flags)
        run(*flags, "--overwrite", lines=LINES[:20])
        np.testing.assert_array_equal(written(Path(flags[1])), EXPECTED[:20])

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lines": LINES[:40]}, r"in.txt: its texts are not those .* \(50 then, 40 now\)"),
            ({"lines": [*LINES[:-1], "another"]}, r"in.txt: its texts are not those .* \(other texts\)"),
            ({"model": Stub(seed=1)}, r"begun with another model \(some/model\)"),
            ({"model": Stub(dim=6)}, r"begun with another model"),
        ],
    )
    def test_something_else_is_not_continued(self, run, flags, change, message):
        run(*flags, model=Stub(dies_at=5), killed=True)
        with pytest.raises(UserError, match=message):
            run(*flags, "--resume", **change)
        run(*flags, "--resume", lines=LINES)
        np.testing.assert_array_equal(written(Path(flags[1])), EXPECTED)


@pytest.mark.parametrize("dtype", ["int8", "binary"])
@pytest.mark.parametrize("flags", [ONE, SHARDS], ids=["one array", "shards"])
def test_fewer_bits_are_written_and_continued_after_a_kill(run, capsys, flags, dtype):
    flags = [*flags, "--dtype", dtype]
    run(*flags, model=Stub(dies_at=6), killed=True)
    with pytest.raises(UserError, match=f"--resume: what is there has --dtype {dtype}"):
        run(*flags, "--dtype", "float32", "--resume")
    run(*flags, "--resume")
    found, expected = written(Path(flags[1])), compact.quantized(EXPECTED, dtype)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert f": 50 x 5, {dtype}" in capsys.readouterr().out
    run(*flags, "--resume", model=Stub(dies_at=0))
    assert "is complete, 50 x" in capsys.readouterr().out
    for other in (["--dtype", "float32"], ["--dim", "16"]):
        with pytest.raises(UserError, match="--resume: .*(--dtype|16)"):
            run(*flags, *other, "--resume")


def test_the_first_numbers_of_vectors_are_written(tiny_preset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("a dog\na cat runs .\n", "utf-8")
    for flags in (["x.npy"], ["y.npy", "--dim", "6"], ["z.npy", "--dim", "6", "--dtype", "int8"]):
        encode.main([str(tiny_preset), "--input", "in.txt", "--output", *flags])
    whole, first, bits = map(np.load, ("x.npy", "y.npy", "z.npy"))
    np.testing.assert_allclose(first, compact.shortened(whole, 6), atol=1e-6)
    np.testing.assert_array_equal(bits, compact.quantized(first, "int8"))


def test_another_shard_size_is_not_continued(run):
    run(*SHARDS, model=Stub(dies_at=5), killed=True)
    with pytest.raises(UserError, match="the stopped run had --shard-size 11. Give it again"):
        run("--output", "x", "--shard-size", "12", "--resume")


def test_a_prompt_is_put_before_each_text_and_another_one_does_not_continue_it(run):
    run(*ONE, "--prompt-name", "passage", model=Stub(dies_at=5), killed=True)
    with pytest.raises(UserError, match="begun with another model .* or another prompt"):
        run(*ONE, "--prompt-name", "query", "--resume")
    run(*ONE, "--prompt-name", "passage", "--resume")
    np.testing.assert_array_equal(np.load("x.npy"), Stub().encode([f"passage: {line}" for line in LINES]))


def test_lost_rows_are_noticed(run):
    run(*SHARDS, model=Stub(dies_at=9), killed=True)
    Path(".x.partial/embeddings-00001-of-00005.npy").write_bytes(b"")
    with pytest.raises(UserError, match="missing from .*embeddings-00001-of-00005.npy"):
        run(*SHARDS, "--resume")


def test_with_nothing_to_resume_the_command_starts(run):
    run(*ONE, "--resume")
    np.testing.assert_array_equal(np.load("x.npy"), EXPECTED)


@pytest.mark.parametrize("flags", [ONE, SHARDS, PARTS], ids=["one array", "shards", "parquet"])
def test_a_complete_output_is_found_complete(run, capsys, flags):
    run(*flags)
    capsys.readouterr()
    run(*flags, "--resume", model=Stub(dies_at=0))
    assert f"is complete, {len(LINES)} x" in capsys.readouterr().out
    with pytest.raises(UserError, match="50 rows|50 then"):
        run(*flags, "--resume", lines=LINES[:12])


@pytest.mark.parametrize("content", [b"", b"not an array"], ids=["empty", "text"])
def test_a_file_that_is_not_an_array_is_not_taken_for_a_complete_output(run, content):
    Path("x.npy").write_bytes(content)
    with pytest.raises(UserError, match="x.npy: not an array of embeddings"):
        run(*ONE, "--resume")


def test_complete_shards_are_replaced_only_when_asked(run):
    run(*SHARDS)
    with pytest.raises(UserError, match="exists. Replace it with --overwrite"):
        run(*SHARDS)
    run(*SHARDS, "--overwrite", lines=LINES[:12])
    np.testing.assert_array_equal(written(Path("x")), EXPECTED[:12])


def test_a_resume_is_refused_before_tensorflow_is_imported(run, tmp_path, tiny_preset):
    run(*ONE, model=Stub(dies_at=5), killed=True)
    Path("in.txt").write_text("other\n")
    command = f"""
import sys
from simcse_tf import encode, errors
try:
    encode.main([{str(tiny_preset)!r}, "--input", "in.txt", "--output", "x.npy", "--resume"])
except errors.UserError as e:
    print("tensorflow" in sys.modules, e)
"""
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False in.txt: its texts are not those")


ROWS = """{"id": "a", "text": "line 0", "year": 1999, "price": 1, "tag": "x"}
{"id": "b", "text": "line 1", "year": null, "price": 1.5}
{"text": "line 2", "id": 7, "year": 9007199254740993, "price": 2, "tag": ["y"]}
"""


@pytest.mark.parametrize("dtype", ["float32", "int8", "binary"])
def test_parquet_has_the_columns_of_the_file_with_their_types(run, dtype):
    Path("in.jsonl").write_text(ROWS, "utf-8")
    run("--input", "in.jsonl", "--output", "x.parquet", "--shard-size", "2", "--dtype", dtype)
    assert sorted(path.name for path in Path("x.parquet").iterdir()) == [
        "embeddings-00000-of-00002.parquet",
        "embeddings-00001-of-00002.parquet",
    ]
    table = pyarrow.parquet.read_table("x.parquet")
    assert table.drop_columns("vector").to_pylist() == [
        {"id": "a", "text": "line 0", "year": 1999, "price": 1, "tag": "x"},
        {"id": "b", "text": "line 1", "year": None, "price": 1.5, "tag": None},
        {"id": "7", "text": "line 2", "year": 9007199254740993, "price": 2, "tag": '["y"]'},
    ]
    assert [str(field.type) for field in table.schema][2:4] == ["int64", "double"]
    expected = compact.quantized(EXPECTED[:3], dtype)
    np.testing.assert_array_equal(written(Path("x.parquet")), expected)
    assert table.schema.field("vector").type.value_type == pyarrow.from_numpy_dtype(expected.dtype)
    assert json.loads(table.schema.metadata[b"simcse_tf"])["model"] == "some/model"
    run("--input", "in.jsonl", "--output", "x.npy", "--dtype", dtype)
    np.testing.assert_array_equal(np.load("x.npy"), expected)


def test_ids_are_the_numbers_of_rows_where_there_are_none(run):
    run("--output", "x.parquet", "--shard-size", "2", lines=["line 0", "", "line 2"])
    rows = pyarrow.parquet.read_table("x.parquet").drop_columns("vector").to_pylist()
    assert rows == [{"id": 0, "text": "line 0"}, {"id": 1, "text": ""}, {"id": 2, "text": "line 2"}]
    Path("in.csv").write_text("name,body\nx,line 0\ny,line 1\n", "utf-8")
    run("--input", "in.csv", "--output", "y.parquet", "--text-column", "body", "--id-column", "name")
    rows = pyarrow.parquet.read_table("y.parquet").drop_columns("vector").to_pylist()
    assert rows == [{"id": "x", "body": "line 0"}, {"id": "y", "body": "line 1"}]


def test_a_run_that_was_killed_while_it_wrote_parquet_encodes_nothing_again(run, monkeypatch):
    write, shards = encode.parquet.write, []

    def dies(records, columns, directory, about, to):
        write(records, columns, directory, about, to)
        shards.extend(to.iterdir())
        raise Killed

    monkeypatch.setattr(encode.parquet, "write", dies)
    run(*PARTS, killed=True)
    assert len(shards) == 5
    assert not Path("x.parquet").exists()
    monkeypatch.setattr(encode.parquet, "write", write)
    again = Stub()
    run(*PARTS, "--resume", model=again)
    assert again.left == -1, "texts were encoded again"
    np.testing.assert_array_equal(written(Path("x.parquet")), EXPECTED)
    assert [p.name for p in Path().iterdir() if p.name.startswith(".")] == []


def test_other_metadata_is_not_taken_for_what_is_complete(run, capsys):
    flags = ("--input", "in.jsonl", "--output", "x.parquet")
    Path("in.jsonl").write_text(ROWS, "utf-8")
    run(*flags)
    run(*flags, "--resume")
    assert "is complete, 3 x 5" in capsys.readouterr().out
    Path("in.jsonl").write_text(ROWS.replace("1999", "2000"), "utf-8")
    with pytest.raises(UserError, match="its texts are not those"):
        run(*flags, "--resume")
    Path("x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="x.parquet: not a Parquet file of vectors"):
        run(*flags, "--resume")


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("id,text\n1,a\n1,b\n", [], "in.csv:3: the id '1' is there for the second time"),
        ("text,vector\na,b\n", [], "in.csv: 'vector' is what the vectors are called"),
        ("a,b\n1,2\n", [], "which of its columns"),
        ("text\na\n", ["--id-column", "key"], "no column 'key'"),
    ],
)
def test_rows_that_parquet_cannot_have(run, content, flags, message):
    Path("in.csv").write_text(content, "utf-8")
    with pytest.raises(UserError, match=message):
        run("--input", "in.csv", "--output", "x.parquet", *flags)
    assert not list(Path().glob("*x.parquet*"))
