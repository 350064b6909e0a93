"""Records survive a restart, and rubbish does not stop one."""

from pathlib import Path

import pytest

from cove.host.records import RecordStore
from cove.models.hosts import HostState, SandboxRecord
from cove.models.isolation import Isolation
from cove.models.limits import Limits


def record(sandbox_id: str) -> SandboxRecord:
    return SandboxRecord(
        sandbox_id=sandbox_id,
        template="base",
        isolation=Isolation.NAMESPACE,
        limits=Limits(),
        state=HostState.RUNNING,
        socket_path="/run/x.sock",
        pid=1,
        pid_started=2,
        created=3.5,
        driver_state={"slot": "4"},
    )


def test_what_is_saved_is_loaded_by_the_next_one(tmp_path: Path) -> None:
    RecordStore(tmp_path).save(record("1763382095i648uu1o"))
    assert RecordStore(tmp_path).load() == (record("1763382095i648uu1o"),)


def test_what_is_saved_for_good_is_loaded_too(tmp_path: Path) -> None:
    stopped = record("1763382095i648uu1o").model_copy(update={"state": HostState.STOPPED, "env_vars": {"A": "b"}})
    RecordStore(tmp_path).save(stopped, durable=True)
    assert RecordStore(tmp_path).load() == (stopped,)
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]


def test_removal_is_idempotent(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    store.save(record("1763382095i648uu1o"))
    store.remove("1763382095i648uu1o")
    store.remove("1763382095i648uu1o")
    assert store.load() == ()


def test_a_half_written_record_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "1763382095i648uu1o.json").write_text('{"sandbox_id": "17')
    assert RecordStore(tmp_path).load() == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "1763382095i648uu1", "1763382095i648uu1o/x"])
def test_only_ids_become_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not a sandbox id"):
        RecordStore(tmp_path).remove(name)
