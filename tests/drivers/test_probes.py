"""What boot probes have found is remembered, for this machine as it is, by this user, not for long."""

import json
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cove.drivers import probes
from cove.drivers.probes import BootProbe, Verdict
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation

pytestmark = pytest.mark.anyio


class Machine:
    """One whose probe works, or does not; it counts how often it was tried."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tried = 0
        self.facts: tuple[str, ...] = ("runsc", "1")
        self.problem: CoveError | OSError | None = None

    async def outcome(self, *, fresh: bool = False) -> Verdict | CoveError:
        """As another process finds it."""
        return await self.probe().outcome(fresh=fresh)

    def probe(self) -> BootProbe:
        """That of another process."""
        return BootProbe(Isolation.GVISOR, facts=self._facts, attempt=self._attempt, verdicts=self.directory)

    @property
    def file(self) -> Path:
        (found,) = self.directory.iterdir()
        return found

    async def _facts(self) -> tuple[str, ...]:
        return self.facts

    async def _attempt(self) -> Mapping[str, str]:
        self.tried += 1
        if self.problem:
            raise self.problem
        return {"hide": "yes"}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "verdicts")


async def test_the_next_process_does_not_try_again(machine: Machine) -> None:
    first, second = await machine.outcome(), await machine.outcome()
    assert isinstance(first, Verdict)
    assert (first, machine.tried, first.notes) == (second, 1, {"hide": "yes"})
    assert stat.S_IMODE(machine.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(machine.directory.stat().st_mode) == 0o700
    await machine.outcome(fresh=True)
    assert machine.tried == 2


@pytest.mark.parametrize(
    "problem", [error("SANDBOX_START_FAILED", "It does not boot."), OSError(28, "No space left on device")]
)
async def test_a_failure_is_remembered_by_nobody(machine: Machine, problem: CoveError | OSError) -> None:
    await machine.outcome()
    machine.problem = problem
    assert isinstance(await machine.outcome(fresh=True), CoveError)
    assert list(machine.directory.iterdir()) == []
    machine.problem = None
    assert isinstance(await machine.outcome(), Verdict)


async def test_it_counts_for_the_same_machine_and_not_for_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.outcome()
    machine.facts = ("runsc", "2")
    await machine.outcome()
    assert machine.tried == 2
    now = time.time()
    for moment, tried in ((now + 23 * 3600, 2), (now + 25 * 3600, 3), (now, 4)):
        with monkeypatch.context() as patch:
            patch.setattr(probes.time, "time", lambda moment=moment: moment)
            await machine.outcome()
        assert machine.tried == tried
    monkeypatch.setattr(probes.platform, "release", lambda: "another kernel")
    await machine.outcome()
    assert machine.tried == 5


def _readable_by_others(path: Path) -> None:
    path.chmod(0o644)


def _anothers(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(path, 12345, 12345)


def _link(path: Path) -> None:
    path.rename(path.parent / "moved")
    path.symlink_to(path.parent / "moved")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _without_notes(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "notes": 1}))


def _deep(path: Path) -> None:
    path.write_text("[" * 4000)


def _empty(path: Path) -> None:
    path.write_text("{}")


def _noise(path: Path) -> None:
    path.write_bytes(b"\xff" * 100_000)


SPOILS: tuple[Callable[[Path], None], ...] = (
    *(_readable_by_others, _anothers, _link, _pipe),
    *(_without_notes, _deep, _empty, _noise),
)


@pytest.mark.parametrize("spoil", SPOILS)
async def test_a_file_that_is_wrong_is_no_verdict(machine: Machine, spoil: Callable[[Path], None]) -> None:
    await machine.outcome()
    spoil(machine.file)
    assert isinstance(await machine.outcome(), Verdict)
    assert machine.tried == 2


def _a_file(path: Path) -> None:
    path.write_text("in the way")


def _a_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to(path.parent / "elsewhere")


def _everybodys(path: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


@pytest.mark.parametrize("prepare", [_a_file, _a_link, _everybodys])
async def test_where_nothing_can_be_kept_it_works_all_the_same(tmp_path: Path, prepare: Callable[[Path], None]) -> None:
    prepare(tmp_path / "verdicts")
    machine = Machine(tmp_path / "verdicts")
    assert isinstance(await machine.outcome(), Verdict)
    assert isinstance(await machine.outcome(), Verdict)
    assert machine.tried == 2
    assert not list(tmp_path.glob("*/*"))


async def test_a_start_that_fails_lets_the_next_process_try(machine: Machine) -> None:
    await machine.outcome()
    probe = machine.probe()
    probe.doubt()
    probe.doubt()
    await machine.outcome()
    assert machine.tried == 2
