"""The pipeline of docs/beam.md, as it stands there."""

import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simcse_tf.serving import Client
from tests.conftest import SENTENCES

pytest.importorskip("apache_beam", reason="apache-beam is not installed: pip install 'simcse-tf[beam]'")
ROOT = Path(__file__).resolve().parents[2]


def test_the_documented_pipeline_gives_every_text_its_vector(exported, tmp_path):
    from pyarrow import parquet

    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "beam.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "encode_beam.py").write_text(code, "utf-8")
    texts = [*SENTENCES, SENTENCES[0], "", "caf\u00e9 \U0001f600"]
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts[:20]), "utf-8")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("".join(f"{text}\n" for text in texts[20:]).encode()))

    command = [sys.executable, "encode_beam.py", "--model", str(exported), "--input", "*.txt*", "--output", "out/part"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    rows = [row for file in tmp_path.glob("out/*.parquet") for row in parquet.read_table(file).to_pylist()]
    assert sorted(row["text"] for row in rows) == sorted(texts)
    assert len({row["id"] for row in rows}) == len(set(texts))
    expected = Client(exported).encode([row["text"] for row in rows], prompt_name="passage")
    np.testing.assert_allclose([row["vector"] for row in rows], expected, atol=1e-5)
