import pytest

from simcse_tf.config import TrainConfig
from simcse_tf.data import sources
from simcse_tf.errors import UserError
from simcse_tf.training import plan


@pytest.fixture
def late(tmp_path, monkeypatch):
    """From `max_steps` to the scan of 300 rows, the 200th bad; of a run of known steps 100 rows are checked."""
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\n" * 199 + b"caf\xe9\n" + b"fine\n" * 100)
    monkeypatch.setattr(plan, "_CHECKED", 100)
    source = sources.open_source(str(path))

    def scan(max_steps):
        return plan.scan_rows(TrainConfig(data=str(path), batch_size=10, max_steps=max_steps), source)

    return scan


def test_a_run_of_epochs_is_counted_and_checked_to_the_end(late):
    with pytest.raises(UserError, match=r"x.txt:200: byte 0xe9 at position 4"):
        late(None)


def test_a_run_of_given_steps_is_checked_where_it_begins(late):
    assert late(1000) == sources.Scan(rows=100, bad=0, complete=False, first_bad=None)
