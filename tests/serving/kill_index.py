"""Kills changes of an index at every moment that counts: `python -m tests.serving.kill_index WHAT DIRECTORY`.

WHAT is build, replace, add, remove, or full: a disk that fills. Each change runs in a process that is forked from this
one, which has imported everything and done nothing with it. Before one of its calls that change names on the disk, or
wait for the disk, it is killed as `kill -9` does, at up to 20 of them. Then the index that was there answers as before
or the change is complete; and the same command leads to the same answers as if nothing had happened.
"""

import json
import os
import resource
import shutil
import signal
import sys
import traceback
import zlib
from pathlib import Path

import faiss
import numpy as np

from simcse_tf import cli, index, loading
from simcse_tf.serving import segment, vectors
from simcse_tf.serving.index import Index, exists, is_begun, read_about
from simcse_tf.serving.probes import PROBES

CALLS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir")
KILLS = {"build": 20, "add": 20, "replace": 8, "remove": 8}
ADDED = [f"{i},added {i},{i}" for i in range(30, 100)]


class Stub:
    """A model whose vectors depend on the text alone."""

    prompt_names = ()

    def encode(self, texts, *, batch_size=64, prompt_name=None):
        made = [np.random.default_rng(zlib.crc32(text.encode())).normal(size=16) for text in texts]
        return (np.array(made) / np.linalg.norm(made, axis=1, keepdims=True)).astype("float32")


def child(act):
    """Runs something in a process of its own; returns its exit status, or minus the signal that ended it."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        faiss.omp_set_num_threads(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not os.environ.get("SHOW"):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        act()
        status = 0
    except cli.UserError:
        status = 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def counting(then):
    """From now on `then` is called before each call that matters, with its number."""
    number = 0

    def counted(call):
        def wrapped(*arguments, **named):
            nonlocal number
            number += 1
            then(number)
            return call(*arguments, **named)

        return wrapped

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))


def answers(directory):
    """What a search finds, by another process."""
    out = directory.with_name("answers.json")

    def search():
        queries = Stub().encode(["text 3", "added 60", "text 80"])
        found = Index(directory, Stub().encode(PROBES)).search(queries, top_k=4, threshold=-1)
        out.write_text(json.dumps([[(each.text, each.id, round(each.cosine, 3)) for each in one] for one in found]))

    assert child(search) == 0
    return json.loads(out.read_text())


def main():
    what, root = sys.argv[1], Path(sys.argv[2])
    # Which is slow, and makes no difference to who is killed.
    os.fsync = lambda descriptor: None
    loading.locate = lambda *_, **__: Stub
    segment._MOST_ROWS = 40
    vectors._CALLS = 1
    (root / "old.csv").write_text("id,text,year\n" + "".join(f"{i},text {i},{i}\n" for i in range(90)))
    (root / "new.csv").write_text("id,text,year\n" + "\n".join(ADDED) + "\n")
    (root / "other.csv").write_text("id,text,year\n" + "".join(f"{i},other {i},{i}\n" for i in range(90)))
    place = root / "index"
    build = ["build", str(root / "old.csv"), "--model", "m", "--batch-size", "32", "--bits", "8", "--to", str(place)]
    change = {
        "build": build,
        "replace": [*build[:1], str(root / "other.csv"), *build[2:]],
        "add": ["add", str(place), str(root / "new.csv"), "--batch-size", "32"],
        "full": ["add", str(place), str(root / "new.csv"), "--batch-size", "32"],
        "remove": ["remove", str(place), "3", "60", "--where", "year > 70"],
    }[what]
    first = [*change, "--overwrite"] if what == "replace" else change
    start, expected = root / "start", None
    if what != "build":
        assert child(lambda: index.main(build)) == 0
        shutil.copytree(place, start)
    before = answers(place) if exists(place) else None

    def act(then):
        counting(then)
        index.main(first)

    count = root / "count"
    assert child(lambda: act(lambda number: count.write_text(f"{number}"))) == 0
    expected = answers(place)

    def fresh():
        shutil.rmtree(place, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, place)

    def check(when):
        """What is there is as it was, or the change is complete."""
        found = answers(place) if exists(place) else None
        assert found in (before, expected), f"{when}: {found}"
        return found == expected

    def repeat(when, complete):
        if complete and what == "remove":
            # What was removed is not there to be removed again.
            return
        flags = []
        if what in ("build", "replace"):
            flags = ["--resume"] if is_begun(place) else ["--overwrite"] if exists(place) else []
        status = child(lambda: index.main([*change, *flags]))
        assert status == 0, f"{when}: the same command ended with {status}"
        assert answers(place) == expected, when
        about = read_about(place)
        assert about.count == about_count, f"{when}: {about.count} texts"
        assert not [path.name for path in place.iterdir() if path.name.startswith(".") and path.name != ".lock"], when

    about_count = read_about(place).count
    if what == "full":
        failed = 0
        for limit in (100, 1000, 3000, 6000, 12_000):
            fresh()

            def small_disk(limit=limit):
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                index.main(change)

            status = child(small_disk)
            assert status in (0, 2), f"files of at most {limit} bytes: {status}"
            failed += status == 2
            check(f"limit {limit}")
            repeat(f"limit {limit}", False)
        print(json.dumps({"failed": failed}))
        return

    moments = sorted({round(moment) for moment in np.linspace(1, int(count.read_text()), KILLS[what])})
    for moment in moments:
        fresh()
        status = child(lambda at=moment: act(lambda number: number == at and os.kill(os.getpid(), signal.SIGKILL)))
        assert status == -signal.SIGKILL, f"moment {moment}: {status}"
        repeat(f"moment {moment}", check(f"moment {moment}"))
    print(json.dumps({"kills": len(moments), "of": int(count.read_text())}))


if __name__ == "__main__":
    main()
