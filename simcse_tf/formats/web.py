"""A page for the browser: a static directory that compares, ranks and searches sentences inside the browser.

What JavaScript it needs from others comes from npm, in the versions of `web/package.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simcse_tf.config import Quantize
from simcse_tf.data.strings import PromptName
from simcse_tf.errors import UserError
from simcse_tf.files import check_new, read_json, sha256, whole_directory, write_json
from simcse_tf.formats.check_texts import check_texts
from simcse_tf.serving.exported import ENCODER_FILE, MODEL_FILE, TOKENIZER_FILE

if TYPE_CHECKING:
    from simcse_tf.models.encoder import Encoder

_SOURCES = Path(__file__).with_name("web")
# package.json tells Node, too, that encoder.js is a module.
_PAGE = ("index.html", "style.css", "page.js", "worker.js", "encoder.js", "package.json")
_WASM = "litert_wasm_compat_internal"
# A file of the exported directory to where npm puts it.
_RUNTIME = {
    "runtime/litert.js": "@litertjs/core/dist/index.js",
    "runtime/wasm-utils.js": "@litertjs/wasm-utils/dist/index.js",
    # It runs in every browser with SIMD. The variant with relaxed SIMD gave the same vectors, not measurably sooner;
    # the one with threads needs headers that a plain static server does not send.
    f"runtime/{_WASM}.js": f"@litertjs/core/wasm/{_WASM}.js",
    f"runtime/{_WASM}.wasm": f"@litertjs/core/wasm/{_WASM}.wasm",
    "runtime/tokenizers.js": "@huggingface/tokenizers/dist/tokenizers.min.mjs",
}
# Workers know no import maps, hence no names of packages.
_IMPORTED, _IMPORTED_AS = '"@litertjs/wasm-utils"', '"./wasm-utils.js"'
# What the page loads before it can encode, beside its own scripts.
_LOADED = (ENCODER_FILE, f"runtime/{_WASM}.wasm", TOKENIZER_FILE, MODEL_FILE)
# Seconds. npm itself waits minutes for a registry that does not answer.
_NPM_TIMEOUT = 300
_NPM_HELP = "They are needed once: is there a network, and does npm reach its registry?"
_CARD_SECTION = [
    "## In the browser",
    "",
    "    python -m http.server",
    "",
    "in this directory, or any other static server, shows a page that compares, ranks and searches sentences inside",
    "the browser.",
    "",
]


def runtime() -> Path:
    """The npm packages that the page runs on: a `node_modules` in this user's cache, filled on first use.

    Raises:
        UserError: npm is missing, or could not install them.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "simcse_tf"
    installed = cache / f"web-{sha256(_SOURCES / 'package.json')[:12]}"
    for program in ("npm", "node"):
        if shutil.which(program) is None:
            raise UserError(
                f"a page for the browser is made with npm packages and checked with Node, but there is no {program} on "
                "the path. Install Node.js, with npm."
            )
    if not installed.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            # Beside its final name, and not under one that another process would use too.
            with tempfile.TemporaryDirectory(prefix=".web-", dir=cache) as new:
                shutil.copyfile(_SOURCES / "package.json", Path(new) / "package.json")
                _npm_install(Path(new))
                if not installed.is_dir():
                    shutil.copytree(new, f"{new}.whole")
                    os.rename(f"{new}.whole", installed)
        except OSError as e:
            raise UserError(f"{cache}: cannot hold the page's npm packages ({e}). Set XDG_CACHE_HOME.") from e
    return installed / "node_modules"


def _npm_install(directory: Path) -> None:
    """Installs what a directory's `package.json` names; npm checks what it gets against the registry's checksums."""
    quiet = ["--no-audit", "--no-fund", "--no-package-lock", "--no-update-notifier", "--loglevel=error"]
    try:
        done = subprocess.run(
            # Scripts of packages are not run.
            ["npm", "install", "--ignore-scripts", "--fetch-retries=1", *quiet],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_NPM_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as e:
        raise UserError(f"npm did not install the page's packages within {_NPM_TIMEOUT} s. {_NPM_HELP}") from e
    if done.returncode != 0:
        said = "\n".join(done.stderr.strip().splitlines()[:6])
        raise UserError(f"npm could not install the page's packages:\n{said}\n{_NPM_HELP}")


def export(encoder: Encoder, directory: Path, *, source: str = "", quantize: Quantize = "int8") -> Path:
    """Writes a directory with a page that runs the encoder in the browser: LiteRT in WebAssembly.

    It is a LiteRT directory (`formats/litert.py`) with `index.html` and what that needs. Any static server shows it;
    the page asks no other host for anything. The directory appears only after the page's own tokenizer and runtime,
    run by Node, gave the embedder's tokens and the live encoder's embeddings for 21 texts.

    Args:
        encoder: The encoder.
        directory: Must not exist.
        source: Where the encoder comes from, for the model card.
        quantize: As for LiteRT; a browser loads the whole model before it can answer.

    Returns:
        The directory.

    Raises:
        UserError: As for LiteRT; npm is missing or fails; the page's tokens or vectors are others.
    """
    from simcse_tf.formats import litert

    check_new(directory)
    packages = runtime()
    with whole_directory(directory) as new:
        litert.write(encoder, new, name=directory.name, source=source, quantize=quantize, section=_CARD_SECTION)
        write_page(new, packages, name=directory.name, quantize=quantize)
        _check(encoder, new, litert.SMALLEST_COSINE[quantize])
    return directory


def write_page(directory: Path, packages: Path, *, name: str, quantize: Quantize) -> None:
    """Adds the page to a LiteRT directory."""
    for file in _PAGE:
        shutil.copyfile(_SOURCES / file, directory / file)
    (directory / "runtime").mkdir()
    for file, origin in _RUNTIME.items():
        shutil.copyfile(packages / origin, directory / file)
    runtime_script = directory / "runtime/litert.js"
    code = runtime_script.read_text("utf-8")
    if code.count(_IMPORTED) != 1:
        raise UserError(f"{packages}: not the packages that this version needs. Delete {packages.parent}.")
    runtime_script.write_text(code.replace(_IMPORTED, _IMPORTED_AS), "utf-8")
    _write_licences(directory / "LICENSES.txt", packages)
    sizes = {file: (directory / file).stat().st_size for file in _LOADED}
    stored = "float32" if quantize == "none" else quantize
    write_json(directory / "page.json", {"name": f"{name} ({stored})", "bytes": sizes})


def _write_licences(to: Path, packages: Path) -> None:
    """Every package with its version and licence, then the licences' texts as far as packages carry them."""
    lines, texts = ["The directory runtime/ has files of these npm packages.", ""], []
    for name in read_json(_SOURCES / "package.json")["dependencies"]:
        about = read_json(packages / name / "package.json")
        lines.append(f"{name} {about['version']}: {about['license']}")
        texts += [text.read_text("utf-8") for text in sorted((packages / name).glob("LICENSE*"))]
    to.write_text("\n".join([*lines, "", *dict.fromkeys(texts)]), "utf-8")


def _check(encoder: Encoder, directory: Path, smallest_cosine: float) -> None:
    # It imports ai-edge-litert, which not every export needs.
    from simcse_tf.serving.embedder import Embedder

    texts = check_texts()
    page = run(directory, texts)
    for text, expected, row in zip(texts, Embedder(directory, threads=1).token_ids(texts), page, strict=True):
        if row["ids"] != expected:
            raise UserError(
                f"the tokenizer of the page splits {text[:60]!r} into other tokens than the encoder's: "
                f"{row['ids'][:20]} instead of {expected[:20]}. It was not exported."
            )
    cosines = np.sum([row["vector"] for row in page] * encoder.encode(texts), axis=1)
    # Written so that a NaN fails.
    if not cosines.min() >= smallest_cosine:
        raise UserError(
            f"the page's vectors differ from the encoder's: a cosine of {cosines.min():.4f} between both vectors of a "
            f"text (allowed: {smallest_cosine}). It was not exported."
        )


def run(directory: Path, texts: list[str], side: PromptName | None = None) -> list[dict[str, Any]]:
    """What the page's scripts make of texts under Node, with the prompt of a side: for each its `ids` and `vector`."""
    done = subprocess.run(
        ["node", str(_SOURCES / "check.mjs"), str(directory), *([side] if side else [])],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise UserError(f"the page's scripts do not run under Node:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)
