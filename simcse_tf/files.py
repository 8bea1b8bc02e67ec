"""Directories and files that appear whole or not at all, and JSON files read with errors that say where."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simcse_tf.errors import UserError


@contextmanager
def whole_directory(directory: Path) -> Iterator[Path]:
    """Yields a temporary directory that takes its final name only when the block ends well.

    A kill at any moment leaves the final name absent, never half-written, and so does a machine that loses its power:
    what is inside is on the disk before it gets its name. Leftovers are removed by the next call.

    Args:
        directory: The final name; must not exist.

    Raises:
        FileExistsError: It exists when the block ends.
    """
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if directory.exists():
            raise FileExistsError(directory)
        for inside in (*partial.rglob("*"), partial):
            _sync(inside)
        os.rename(partial, directory)
        _sync(directory.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@dataclass(frozen=True)
class Output:
    """A file that takes long to write. It appears when it is complete; what a killed process did is continued.

    Until then everything is in `work`, a hidden directory beside it.

    Attributes:
        to: The file.
        resume: Continue what a killed process left, if it left anything, and be content with a file that is there.
        overwrite: Replace the file, and discard what a killed process left.
    """

    to: Path
    resume: bool
    overwrite: bool

    @property
    def work(self) -> Path:
        """Where the work of a process lies, until it is done."""
        return self.to.with_name(f".{self.to.name}.partial")

    @property
    def unfinished(self) -> Path:
        """The file while it is being written."""
        return self.work / "output"

    @property
    def _done(self) -> Path:
        return self.to.with_name(f".{self.to.name}.done")

    def check(self) -> None:
        """Checks that the file may be written.

        Raises:
            UserError: It may not, or there is something that neither setting says what to do with.
        """
        if self.overwrite and self.resume:
            raise UserError("`overwrite` and `resume` contradict each other: give one of them.")
        check_writable(self.to, "to")
        if self.to.is_dir():
            raise UserError(f"`to` {self.to}: is a directory. Name a file.")
        if self.overwrite or self.resume:
            return
        if self.to.exists():
            raise UserError(f"`to` {self.to}: exists. Replace it with `overwrite`, or choose another name.")
        if self.work.exists():
            raise UserError(
                f"`to` {self.to}: a run before this one was stopped. Continue it with `resume`, or discard what it did "
                "with `overwrite`."
            )

    def complete(self) -> bool:
        """Whether nothing is left to do."""
        if self._done.exists() and not self.overwrite:
            self._finish()
            return True
        return self.resume and self.to.exists() and not self.work.exists()

    def begin(self) -> None:
        """Makes the directory for the work; with `overwrite` an empty one."""
        if self.overwrite:
            shutil.rmtree(self._done, ignore_errors=True)
            shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(exist_ok=True)

    def publish(self) -> None:
        """Gives the file its name and removes everything else. A kill before the end is made good by `complete`."""
        os.rename(self.work, self._done)
        self._finish()

    def _finish(self) -> None:
        if (self._done / self.unfinished.name).exists():
            os.replace(self._done / self.unfinished.name, self.to)
        shutil.rmtree(self._done)


def check_writable(file: Path, setting: str) -> None:
    """Checks that a file can be written where a setting says.

    Raises:
        UserError: Its directory does not exist, or the permission is missing.
    """
    if not file.parent.is_dir():
        raise UserError(f"`{setting}` {file}: the directory {file.parent} does not exist.")
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"`{setting}` {file}: no permission to write in {file.parent}.")


def point_to(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to its neighbour `target`, replacing an older link in one atomic step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    os.replace(new, link)


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file in one atomic step, replacing an older one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    _sync(partial)
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: It cannot be read or is not JSON; names the file, the line and the reason.
    """
    try:
        content = path.read_bytes()
        return json.loads(content.decode("utf-8-sig"))
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}).") from e
    except UnicodeDecodeError as e:
        line, reason = content[: e.start].count(b"\n") + 1, f"byte 0x{content[e.start]:02x} is not UTF-8"
    except json.JSONDecodeError as e:
        line, reason = e.lineno, e.msg
    except (ValueError, RecursionError) as e:
        line, reason = 1, str(e)
    raise UserError(f"{path}:{line}: not JSON ({reason}). Correct the file, or restore it from where it came from.")


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        UserError: As `read_json`, or it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object. Correct the file, or restore it from where it came from.")
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, indented, for people to read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while block := f.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_new(directory: Path) -> None:
    """Checks that there is nothing yet under a directory's name.

    Raises:
        UserError: There is something.
    """
    if directory.exists():
        raise UserError(f"{directory}: already exists. Delete it, or choose another name.")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
