"""Each kind of bad input to the command, as a user would see it: message on stderr, status 2, nothing written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BAD = {
    "an empty file": (
        {"x.txt": b""},
        ["--data", "x.txt"],
        r"x.txt: empty \(0 lines\)",
    ),
    "only blank lines": (
        {"x.txt": b"\n  \n\n"},
        ["--data", "x.txt"],
        r"x.txt: no usable row: 3 lines",
    ),
    "fewer rows than a batch": (
        {"x.txt": b"one\ntwo\n"},
        ["--data", "x.txt"],
        r"--data x.txt: 2 usable rows, fewer than one batch of 64. Give more data or a smaller --batch-size.",
    ),
    "a wrong number of columns": (
        {"x.csv": b"sent0,sent1,hard_neg\na,b,c\nA man is playing,b\n"},
        ["--data", "x.csv"],
        r'x.csv:3: expected 3 columns \(sent0, sent1, hard_neg\), found 2; the row starts "A man is playing,b"',
    ),
    "an empty cell": (
        {"x.csv": b"a,b\nx,y\nx,\n"},
        ["--data", "x.csv"],
        r"x.csv:3: 'b' is empty; the row starts",
    ),
    "bytes that are not UTF-8": (
        {"x.txt": b"fine\ncaf\xe9 au lait\n"},
        ["--data", "x.txt"],
        r"x.txt:2: byte 0xe9 at position 4.*; the row starts .* --skip-bad-rows",
    ),
    "too few rows once the bad ones are skipped": (
        {"x.txt": b"fine\ncaf\xe9\n"},
        ["--data", "x.txt", "--skip-bad-rows"],
        r"1 usable rows \(1 bad ones skipped\), fewer than one batch",
    ),
    "a document too short for two crops": (
        {"docs/1.txt": b"One. Two. Three.", "docs/2.md": b"# One"},
        ["--data", "docs"],
        r"docs/2.md:1: a document of 1 sentence, .* --crop-sentences 2 with --crop-overlap 1 takes 3.*--skip-bad-rows",
    ),
    "a folder without documents": (
        {"docs/1.pdf": b"x"},
        ["--data", "docs"],
        r"docs: no .txt or .md file in this folder or below it .*, but others: 1 .pdf",
    ),
    "crops that overlap whole": (
        {},
        ["--crop-sentences", "1"],
        r"--crop-overlap 1: must be at least 0 and at most 0 \(fewer than --crop-sentences 1\)",
    ),
    "a missing file": ({}, ["--data", "x.txt"], r"x.txt: No such file or directory"),
    "an unknown source": ({}, ["--data", "wiki1"], r"Did you mean 'wiki1m'\?"),
    "an unknown column": (
        {"x.csv": b"anchor,other\na,b\n"},
        ["--data", "x.csv", "--columns", "ancor"],
        r"no column 'ancor'. Did you mean 'anchor'\?",
    ),
    "an unknown recipe": ({}, ["quickstat"], r"unknown recipe 'quickstat'. Did you mean 'quickstart'\?"),
    "an unknown flag": ({}, ["--batchsize", "3"], r"--batch-size"),
    "an unknown pooler": (
        {},
        ["--pooling", "mean"],
        r"invalid choice 'mean' for argument '--pooling'. Expected one of .*'avg', 'avg_top2'",
    ),
    "an unknown preset": ({}, ["--preset", "bert_base_en_uncase"], r"Did you mean 'bert_base_en_uncased'"),
    "an output directory that holds something else": (
        {"out/notes.txt": b"mine"},
        ["--output-dir", "out"],
        r"--output-dir out: holds files that are not a run's",
    ),
    "triplet loss without negatives": (
        {},
        ["--loss", "triplet"],
        r"--loss triplet needs anchor, positive and hard negative, but --data bundled has 1 text column",
    ),
    "a size beyond the encoder's": (
        {},
        ["--matryoshka", "512", "384", "128"],
        r"--matryoshka 512 384 128: the vectors of --preset minilm have only 384 numbers",
    ),
    "sizes that leave out the encoder's own": (
        {},
        ["--matryoshka", "256", "128"],
        r"--matryoshka 256 128: nothing would train the numbers after the first 256. Add 384",
    ),
    "a size twice": ({}, ["--matryoshka", "384", "64", "64"], r"--matryoshka 384 64 64: 64 is there twice"),
    "other weights than sizes": (
        {},
        ["--matryoshka", "384", "64", "--matryoshka-weights", "1"],
        r"--matryoshka-weights 1: 1 for the 2 sizes in --matryoshka",
    ),
    "a hard-negative weight without negatives": (
        {},
        ["--hard-negative-weight", "1"],
        r"--hard-negative-weight 1: --data bundled has 1 text column and no hard negatives",
    ),
    "a row with fewer hard negatives than others": (
        {"x.csv": b"anchor,positive,negative_1,negative_2\na,b,c,d\na,b,c,\n"},
        ["--data", "x.csv"],
        r"x.csv:3: 'negative_2' is empty",
    ),
    "a class with one text": (
        {"x.csv": b"text,label\na,x\nb,x\nc,y\nd,z\ne,z\n"},
        ["--data", "x.csv"],
        r"x.csv:4: no different text has the label 'y', so no positive; .* --skip-bad-rows",
    ),
    "labels of one text each": (
        {"x.csv": b"text,label\n" + b"".join(b"text %d,%d\n" % (i, i) for i in range(10_000))},
        ["--data", "x.csv"],
        r"x.csv:2: from here on 'label' has 10,000 different values in 10,000 rows, .* set --columns text",
    ),
    "an empty label": (
        {"x.csv": b"text,label\na,x\nb,x\nc,\nd,y\ne,y\n"},
        ["--data", "x.csv"],
        r"x.csv:4: 'label' is empty",
    ),
    "graded pairs as positives": (
        {"x.csv": b"sentence1,sentence2,score\na,b,1\n"},
        ["--data", "x.csv"],
        r"--loss infonce has no use for scores, .* Use --loss cosent; .* set --columns sentence1 sentence2",
    ),
    "sentences for the loss of graded pairs": (
        {},
        ["--loss", "cosent"],
        r"--loss cosent needs two texts and a score in every row, but --data bundled has 1 text column",
    ),
    "sentences without dropout for pairs": (
        {"x.csv": b"anchor,positive\na,b\n"},
        ["--data", "x.csv", "--negatives", "off_dropout"],
        r"--negatives off_dropout needs single sentences, .* but --data x.csv has 2 text columns",
    ),
    "a queue of texts of classes": (
        {"x.csv": b"text,label\na,x\nb,x\nc,y\nd,y\n"},
        ["--data", "x.csv", "--negatives", "mixed", "queue:64"],
        r"--negatives queue: --data x.csv has texts with labels",
    ),
    "uniformity of classes": (
        {"x.csv": b"text,label\na,x\nb,x\nc,y\nd,y\n"},
        ["--data", "x.csv", "--loss", "align_uniform"],
        r"--loss align_uniform has no use for labels, .* Use --loss infonce",
    ),
    "a teacher that is not there": (
        {},
        ["--teacher", "./nowhere", "--head", "none"],
        r"--teacher: ./nowhere: no such directory",
    ),
    "an unknown thing to teach": (
        {},
        ["--teach", "vectors", "lists"],
        r"invalid choice 'lists'|--teach lists: unknown",
    ),
    "a teacher for scores": (
        {"x.csv": b"sentence1,sentence2,score\na,b,1\n"},
        ["--data", "x.csv", "--loss", "cosent", "--teacher", "minilm"],
        r"--teacher minilm: --loss cosent learns from scores",
    ),
    "a teacher's vectors in sizes": (
        {},
        ["--teacher", "minilm", "--head", "none", "--matryoshka", "384", "128"],
        r"--teach vectors and --matryoshka: .*Use --teach listwise",
    ),
    "a teacher for a head that is dropped": ({}, ["--teacher", "minilm"], r"--teach vectors: with --head train_only"),
    "more layers than there are": (
        {},
        ["--layers", "7"],
        r"--layers 7: must be at least 1 and at most 6 \(minilm has 6",
    ),
    "a half-downloaded weights file": (
        {
            "model/config.json": b'{"model_type": "bert", "layer_norm_eps": 1e-12}',
            "model/vocab.txt": b"[PAD]",
            "model/model.safetensors": (60).to_bytes(8, "little")
            + b'{"a": {"dtype":"F32","shape":[9],"data_offsets":[0,36]}}    ',
        },
        ["--preset", "model"],
        r"model.safetensors: has 68 bytes where its header promises 104. Download it again.",
    ),
    "a development set whose grades are all equal": (
        {"d.csv": b"sentence1,sentence2,score\na,b,3\nc,d,3\n"},
        ["--dev", "bundled", "d.csv"],
        r"d.csv:2: the score of this and of every other pair is 3",
    ),
    "a judgement of a document that is not there": (
        {
            "d/corpus.jsonl": b'{"_id": "1", "text": "a"}\n{"_id": "2", "text": "b"}\n',
            "d/queries.jsonl": b'{"_id": "1", "text": "q"}\n',
            "d/qrels/dev.tsv": b"query-id\tcorpus-id\tscore\n1\t3\t1\n",
        },
        ["--dev", "d"],
        r"d/qrels/dev.tsv:2: the corpus-id 3 is not in d/corpus.jsonl",
    ),
    "an unknown judge": ({}, ["--select-by", "bundeld"], r"--select-by bundeld: .* Did you mean 'bundled'"),
    "a missing development set": ({}, ["--sts-dir", "nowhere"], r"nowhere.*sts-dev.csv: not found"),
}


# One process for all: each of its own would begin with the same second of imports.
COMMANDS = """
import contextlib, io, json, os, sys
from simcse_tf import cli, train
answers = {}
for name, (directory, flags) in json.load(sys.stdin).items():
    os.chdir(directory)
    sys.argv = ["train", *flags]
    said, code = io.StringIO(), 0
    try:
        with contextlib.redirect_stderr(said):
            cli.run(train.main)
    except SystemExit as e:
        code = e.code
    answers[name] = code, said.getvalue(), "tensorflow" in sys.modules
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """By name: exit status, what stderr got, whether TensorFlow was imported, and the files before and after."""
    before, given = {}, {}
    for name, (files, flags, _) in BAD.items():
        directory = tmp_path_factory.mktemp("bad")
        for path, content in files.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_bytes(content)
        given[name] = str(directory), flags
        before[name] = sorted(directory.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=json.dumps(given), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return {
        name: (*answer, before[name], sorted(Path(given[name][0]).rglob("*")))
        for name, answer in json.loads(done.stdout).items()
    }


@pytest.mark.parametrize("name", BAD)
def test_the_answer_to(name, answers):
    code, said, imported, before, after = answers[name]
    # What tyro says is set in a box: undo the lines.
    said = re.sub(r"[\s│]+", " ", said)
    assert re.search(BAD[name][2], said), said
    assert code == 2
    assert "Traceback" not in said
    assert not imported, "TensorFlow was imported before the complaint"
    assert after == before, "something was written"
