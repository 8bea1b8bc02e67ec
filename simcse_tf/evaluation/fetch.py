"""Downloads the STS sets from where their makers put them and lays them out as SentEval does.

STS12-16 and STS-B come from the organisers' wiki (ixa2.si.ehu.eus/stswiki), SICK from the page of SemEval-2014 task 1
(alt.qcri.org/semeval2014/task1): the same archives that SentEval's own script takes. The text stays as published;
SentEval's script also runs the Moses tokeniser and lowercases it. (SICK on Zenodo, record 2787612, is another edition
without duplicates: its test part has 4,906 pairs, not 4,927.) The SimCSE authors keep one archive of everything,
already laid out, at huggingface.co/datasets/princeton-nlp/datasets-for-simcse (senteval.tar).

The makers publish no checksums, so the first download that unpacks to complete sets pins its sha256 in
`checksums.json`, and whatever differs later is refused. Archives stay in `archives/`: a second call downloads only what
is missing.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
import urllib.parse
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from simcse_tf import network
from simcse_tf.errors import UserError, did_you_mean
from simcse_tf.evaluation import sts
from simcse_tf.files import read_json


@dataclass(frozen=True)
class Source:
    """One archive.

    Attributes:
        url: Where it is; its last part is the archive's name.
        tasks: Keys of `sts.TASKS` that it makes complete.
        members: What is taken from it: path inside the archive to path in SentEval's layout.
    """

    url: str
    tasks: tuple[str, ...]
    members: dict[str, str]

    @property
    def name(self) -> str:
        """The archive's file name."""
        return self.url.rsplit("/", 1)[-1]


def _source(url: str, folder: str, *tasks: str, prefix: str = "STS.") -> Source:
    targets = [path for t in tasks for s in sts.TASKS[t].subsets for path in sts.TASKS[t].paths(Path(), s)]
    names = {path: path.name.replace("STS.", prefix, 1) for path in targets}
    return Source(url, tasks, {folder + names[path]: path.as_posix() for path in targets})


_WIKI = "http://ixa2.si.ehu.eus/stswiki/images"
_SICK = "http://alt.qcri.org/semeval2014/task1/data/uploads"

SOURCES: list[Source] = [
    _source(f"{_WIKI}/4/40/STS2012-en-test.zip", "test-gold/", "STS12"),
    _source(f"{_WIKI}/2/2f/STS2013-en-test.zip", "test-gs/", "STS13"),
    _source(f"{_WIKI}/8/8c/STS2014-en-test.zip", "sts-en-test-gs-2014/", "STS14"),
    _source(f"{_WIKI}/d/da/STS2015-en-test.zip", "test_evaluation_task2a/", "STS15"),
    _source(f"{_WIKI}/9/98/STS2016-en-test.zip", "sts2016-english-with-gs-v1.0/", "STS16", prefix="STS2016."),
    _source(f"{_WIKI}/4/48/Stsbenchmark.tar.gz", "stsbenchmark/", "STSB-dev", "STSB-test"),
    _source(f"{_SICK}/sick_test_annotated.zip", "", "SICK-R"),
]


def fetch(
    directory: Path | str, tasks: Iterable[str] | None = None, *, say: Callable[[str], None] = print
) -> list[str]:
    """Downloads and unpacks STS sets into `directory`, which is then an `sts_dir`.

    Args:
        directory: Made if it does not exist.
        tasks: Keys of `sts.TASKS`; all of them if not given.
        say: Called with a line of progress for each archive.

    Returns:
        The tasks that are now complete in `directory`.

    Raises:
        UserError: Unknown task; no network or no such file at a source (after the other sources were tried); an
            archive is not the one pinned, or does not hold complete sets.
    """
    wanted = set(sts.TASKS) if tasks is None else set(tasks)
    for task in wanted - set(sts.TASKS):
        raise UserError(f"unknown STS task '{task}'. {did_you_mean(task, sts.TASKS)}")
    root = Path(directory)
    archives = root / "archives"
    try:
        archives.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"{archives}: cannot be made ({e.strerror}). Choose another directory.") from e
    done: list[str] = []
    failed: list[str] = []
    silent: set[str] = set()
    for source in SOURCES:
        if wanted.isdisjoint(source.tasks):
            continue
        archive = archives / source.name
        host = urllib.parse.urlsplit(source.url).netloc
        if archive.exists():
            _install(archive, source, root)
        elif host in silent:
            failed.append(f"{source.url}: not tried, see above")
            continue
        else:
            part = archives / f"{source.name}.part"
            try:
                network.download(source.url, part)
                _install(part, source, root)
                part.replace(archive)
            except network.UnreachableError as e:
                failed.append(f"{source.url}: {e}")
                if e.silent:
                    silent.add(host)
                continue
            finally:
                part.unlink(missing_ok=True)
        say(f"{source.name}: {archive.stat().st_size / 1e6:.1f} MB, {', '.join(source.tasks)} complete")
        done += source.tasks
    if failed:
        raise UserError(
            "could not download:\n  " + "\n  ".join(failed) + f"\nComplete in {root}: {', '.join(done) or 'nothing'}. "
            "Run the same command where a network reaches these addresses (only what is missing is downloaded), "
            f"or put the archives into {archives} by hand and run it again."
        )
    return done


def _install(archive: Path, source: Source, root: Path) -> None:
    """Checks `archive` against its pin, unpacks it, checks the sets, moves them into `root`, and pins it if new."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    pins = _read_pins(root / "checksums.json")
    if pins.get(source.name, digest) != digest:
        raise UserError(
            f"{source.name} from {source.url}: its sha256 is {digest}, but {root / 'checksums.json'} pins "
            f"{pins[source.name]} since the first download. Nothing was unpacked. Delete the file in "
            f"{root / 'archives'} (if it is there) and fetch again; delete the pin too if you trust the new one."
        )
    with tempfile.TemporaryDirectory(dir=root) as staging:
        for target, content in _unpack(archive, source).items():
            path = Path(staging) / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            for task in source.tasks:
                sts.load(task, staging)
        except UserError as e:
            reason = str(e).replace(f"{staging}/", "")
            raise UserError(f"{source.name} from {source.url} is not complete, nothing was pinned: {reason}") from e
        for target in source.members.values():
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            (Path(staging) / target).replace(root / target)
    if source.name not in pins:
        temporary = root / "checksums.json.tmp"
        temporary.write_text(json.dumps({**pins, source.name: digest}, indent=2) + "\n", encoding="utf-8")
        temporary.replace(root / "checksums.json")


def _read_pins(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pins = read_json(path)
    if not isinstance(pins, dict):
        raise UserError(
            f"{path}: expected an object of archive names and sha256. Restore it, or delete it to pin the archives "
            "again."
        )
    return pins


def _unpack(archive: Path, source: Source) -> dict[str, bytes]:
    try:
        if source.name.endswith(".zip"):
            with zipfile.ZipFile(archive) as file:
                return {target: file.read(member) for member, target in source.members.items()}
        with tarfile.open(archive) as file:
            return {target: _tar_member(file, member) for member, target in source.members.items()}
    except (KeyError, OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError) as e:
        raise UserError(
            f"{source.name} from {source.url} is not the archive expected ({e}). Has the address changed, or does a "
            "proxy answer in its place? Nothing was unpacked or pinned."
        ) from e


def _tar_member(file: tarfile.TarFile, member: str) -> bytes:
    content = file.extractfile(member)
    if content is None:
        raise KeyError(f"{member} is not a file")
    return content.read()
