"""What an idle sandbox costs in memory: proportional set sizes (proc_pid_smaps(5)) of its processes, and its part of
what the server and the host daemon grow by.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from benchmarks.bench import Bench
from benchmarks.clients import RawClient, SdkClient, SdkTenant
from benchmarks.outcome import Result, Target, Unit
from benchmarks.process_tree import Process, processes_of, proportional_bytes, recorded, trees
from benchmarks.samples import Distribution, Figure
from benchmarks.serving import Server

_SANDBOXES: Final = 50
_MB: Final = 1e6
_TARGETS: Final = (Target(figure=Figure.MEDIAN, at_most=8, relative=False),)


@dataclass(frozen=True)
class _Memory:
    """Megabytes, at one moment.

    Attributes:
        sandboxes: of each sandbox.
        serving: of the server and the host daemon.
        warm: of the template's warm process, which all sandboxes share pages with.
    """

    sandboxes: list[float]
    serving: float
    warm: float

    @property
    def total(self) -> float:
        """Of everything."""
        return sum(self.sandboxes) + self.serving + self.warm


def measure(bench: Bench) -> list[Result]:
    """Fifty sandboxes: as created, after `print(1)` in each, and as they wait in the warm pool."""
    with bench.serving(pool_size=0) as server:
        client = SdkClient(server.url)
        # The first create starts the warm process; the second finds everything imported.
        for _ in range(2):
            first = client.create()
            first.run_code()
            first.kill()
        before = _memory(server)
        tenants = [client.create() for _ in bench.rounds("create idle sandboxes", _SANDBOXES)]
        created = _memory(server)
        for number in bench.rounds("one program in each", _SANDBOXES):
            tenants[number].run_code()
        used = _memory(server)
        _kill(tenants)
    return [
        _row("idle sandbox, created without a pool, nothing executed", before, created, _TARGETS),
        _row("idle sandbox from the warm pool, nothing executed", before, _pooled(bench), _TARGETS),
        _row("idle sandbox, after one print(1)", before, used),
        Result(
            what="for all sandboxes together: server, host daemon, warm process of the template",
            unit=Unit.MEGABYTES,
            samples=Distribution.of([before.serving + before.warm]),
            note=f"server and host daemon {before.serving:.0f} MB, warm process {before.warm:.0f} MB",
        ),
    ]


def _pooled(bench: Bench) -> _Memory:
    """Members as they wait; it changes nothing in them that somebody takes them."""
    size = bench.count(_SANDBOXES)
    with bench.serving(pool_size=size) as server, RawClient(server.url) as raw:
        raw.wait_for_pool(size)
        return _memory(server)


def _row(what: str, before: _Memory, after: _Memory, targets: tuple[Target, ...] = ()) -> Result:
    count = len(after.sandboxes)
    growth = (after.serving - before.serving) / count
    everything = (after.total - before.total) / count
    return Result(
        what=what,
        unit=Unit.MEGABYTES,
        samples=Distribution.of([own + growth for own in after.sandboxes]),
        targets=targets,
        note=(
            f"{growth:.2f} MB of it is growth of server and host daemon; "
            f"{everything:.2f} MB when the warm process's falling share of common pages is set off"
        ),
    )


def _memory(server: Server) -> _Memory:
    by_sandbox = trees(process.pid for process in recorded(server.data_dir).values())
    of_sandboxes = {process for tree in by_sandbox.values() for process in tree}
    serving = trees([server.pid])[server.pid] - of_sandboxes
    warm = processes_of(server.data_dir) - serving - of_sandboxes
    return _Memory([_megabytes(tree) for tree in by_sandbox.values()], _megabytes(serving), _megabytes(warm))


def _megabytes(processes: Iterable[Process]) -> float:
    return sum(proportional_bytes(process) for process in processes) / _MB


def _kill(tenants: list[SdkTenant]) -> None:
    for tenant in tenants:
        tenant.kill()
