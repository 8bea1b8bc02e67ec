"""Directories and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def point_to(link: Path, target: Path) -> None:
    """Makes `link` a symbolic link to its neighbour `target`, replacing an older link in one atomic step."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    os.replace(new, link)


def write_whole(path: Path, text: str) -> None:
    """Writes a text file in one atomic step, replacing an older one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    _sync(partial)
    os.replace(partial, path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
