"""Put a host together from its parts: the one place that knows which drivers there are."""

import os
import socket
from pathlib import Path

from cove.drivers.base import RuntimeDriver
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, detect
from cove.host.disks import LoopDisks
from cove.host.identities import TEMPLATE_OWNER
from cove.host.records import RecordStore
from cove.host.templates.store import TemplateStore
from cove.hostd.local_host import LocalHost
from cove.models.errors import error
from cove.models.isolation import Isolation


def template_store(data_dir: Path) -> TemplateStore:
    """The templates below `data_dir`, owned as sandboxes expect it."""
    return TemplateStore(data_dir, owner=TEMPLATE_OWNER if os.geteuid() == 0 else None)


def run_directory(data_dir: Path) -> Path:
    """Sockets, records, disks and mount points of what runs now."""
    return data_dir / "run"


def build_host(
    data_dir: Path, *, isolation: str = "auto", max_sandboxes: int = 1000, run_name: str = "run"
) -> LocalHost:
    """A host on this machine; nothing is started yet.

    Args:
        isolation: a level to use by default, or `auto` for the strongest that works.
        run_name: directory below `data_dir` for what runs; two hosts must not share one.

    Raises:
        CoveError: ISOLATION_UNAVAILABLE for a level that this version has no driver for; INVALID_REQUEST when the
            data directory cannot be used.
    """
    _prepare(data_dir)
    run_dir = data_dir / run_name
    drivers: dict[Isolation, RuntimeDriver] = {Isolation.NAMESPACE: _namespace_driver(run_dir)}
    return LocalHost(
        host_id=socket.gethostname(),
        drivers=drivers,
        default_isolation=_wanted(isolation, drivers),
        records=RecordStore(run_dir / "sandboxes"),
        templates=template_store(data_dir),
        max_sandboxes=max_sandboxes,
    )


def _namespace_driver(run_dir: Path) -> NamespaceDriver:
    disks = LoopDisks(run_dir / "disks", owner=TEMPLATE_OWNER) if os.geteuid() == 0 else None
    return NamespaceDriver(run_dir, cgroups=Cgroups(detect()), disks=disks)


def _wanted(isolation: str, drivers: dict[Isolation, RuntimeDriver]) -> Isolation | None:
    if isolation == "auto":
        return None
    if isolation not in drivers:
        have = ", ".join(["auto", *drivers])
        raise error("ISOLATION_UNAVAILABLE", f"No driver for isolation '{isolation}'; there are: {have}.")
    return Isolation(isolation)


def _prepare(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        (data_dir / "run").mkdir(mode=0o755, exist_ok=True)
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"The data directory {data_dir} cannot be used: {problem.strerror}.",
            remedy="Choose another with --data-dir or COVE_DATA_DIR.",
        ) from problem
