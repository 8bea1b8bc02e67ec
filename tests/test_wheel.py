"""What `pip install` gets: the wheel, outside the checkout, from the first command to an answer of the page."""

import email
import json
import os
import re
import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

from benchmarks.workers import free_port
from tests.conftest import SENTENCES

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """The folder of a source distribution and of the wheel that is built from it."""
    pytest.importorskip("build", reason="needs build, hatchling and twine: pip install -e '.[dev]'")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions):
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """The folder of commands of a new environment: the wheel, and what it declares."""
    if "FRESH_INSTALL" not in os.environ:
        pytest.skip("installs gigabytes: make test-wheel")
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", folder / "bin" / "python"]
    run(*install, "-c", ROOT / "constraints.txt", f"simcse-tf[demo] @ {wheel.as_uri()}")
    return folder / "bin"


def outside():
    """This process' environment variables, without what leads to the checkout."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(*command, cwd=None):
    arguments = [str(part) for part in command]
    done = subprocess.run(arguments, cwd=cwd, env=outside(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr or done.stdout
    return done.stdout


def test_twine_accepts_both_distributions(distributions):
    assert run(sys.executable, "-m", "twine", "check", "--strict", *distributions.iterdir()).count("PASSED") == 2


def test_the_wheel_holds_the_package_with_its_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"simcse_tf"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "simcse_tf").glob("**/*.*") if path.is_file()}
    expected = {name for name in sources if "__pycache__" not in name}
    assert {name for name in names if name.startswith("simcse_tf/")} == expected
    assert {Path(name).suffix for name in expected} >= {".csv", ".css", ".js", ".md", ".tsv", ".txt"}


def test_every_link_of_the_description_leads_somewhere_from_a_package_index(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    description = email.message_from_bytes(archive.read(name)).get_payload()
    outside_code = re.sub(r"```.*?```", "", description, flags=re.DOTALL)
    assert "# simcse_tf" in outside_code
    for target in re.findall(r"\]\(([^)]*)\)", outside_code):
        assert target.startswith(("https://", "#")), target


@pytest.mark.slow
def test_an_installed_wheel_trains_loads_encodes_and_answers_on_the_page(environment, tiny_preset, tmp_path):
    (tmp_path / "sentences.txt").write_text("\n".join(SENTENCES) + "\n", "utf-8")
    flags = ["--preset", tiny_preset, "--data", "sentences.txt", "--batch-size", "8", "--max-length", "12"]
    flags += ["--max-steps", "2", "--output-dir", "run", "--export-to", "models/tiny"]
    run(environment / "simcse-tf", "train", *flags, cwd=tmp_path)

    code = (
        "import simcse_tf; print(simcse_tf.__file__)\n"
        "print(simcse_tf.load('models/tiny').encode(['a man plays the guitar .', 'a dog']).shape)"
    )
    where, shape = run(environment / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(where).is_relative_to(environment.parent)
    assert shape == "(2, 16)"

    port = free_port()
    command = [environment / "simcse-tf", "demo", "--models", "models", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, env=outside(), stdout=subprocess.PIPE, text=True) as page:
        try:
            address = page.stdout.readline().split()[0]
            body = json.dumps({"data": ["a man sleeps .", "a man sleeps .", ""]}).encode()
            asked = urllib.request.Request(
                f"{address}gradio_api/call/compare", body, {"Content-Type": "application/json"}
            )
            event = json.load(urllib.request.urlopen(asked))["event_id"]
            with urllib.request.urlopen(f"{address}gradio_api/call/compare/{event}") as answer:
                _, _, answered = answer.read().decode().partition("event: complete\ndata: ")
        finally:
            page.terminate()
    assert json.loads(answered.splitlines()[0])[0]["score"] == pytest.approx(1, abs=1e-5)
