"""Put a host together from its parts: the one place that knows which drivers there are."""

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from cove.drivers.base import RuntimeDriver
from cove.drivers.gvisor.driver import GvisorDriver
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.authority import load_authority
from cove.host.cgroups import Cgroups, detect
from cove.host.disks import LoopDisks
from cove.host.identities import EGRESS_USER, TEMPLATE_OWNER, new_slots
from cove.host.records import RecordStore
from cove.host.templates.store import TemplateStore
from cove.host.templates.trust import TrustLayers
from cove.hostd.egress_log import EgressLogFile
from cove.hostd.host_templates import HostTemplates
from cove.hostd.local_host import LocalHost
from cove.hostd.networks import SandboxNetworks
from cove.hostd.secrets import SandboxSecrets
from cove.hostd.template_versions import TemplateVersions
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation

_EMBEDDED: Final = "embedded-"
_EMBEDDED_SANDBOXES: Final = 16


def template_store(data_dir: Path) -> TemplateStore:
    """The templates below `data_dir`, owned as sandboxes expect it."""
    return TemplateStore(data_dir, owner=_template_owner())


def _template_owner() -> int | None:
    return TEMPLATE_OWNER if os.geteuid() == 0 else None


def run_directory(data_dir: Path) -> Path:
    """Sockets, records, disks and mount points of what runs now."""
    return data_dir / "run"


def builds_directory(data_dir: Path) -> Path:
    """What builds of templates have left, on its way from the control plane to the host."""
    return data_dir / "builds"


def authority_directory(data_dir: Path) -> Path:
    """Keys that nobody but the host's own programs may read: of the egress authority, and of sealed secrets."""
    return data_dir / "authority"


def build_host(
    data_dir: Path,
    *,
    isolation: str = "auto",
    max_sandboxes: int = 1000,
    ceilings: Mapping[str, int] | None = None,
    server_uid: int | None = None,
    internal: Sequence[str] = (),
    nameservers: Sequence[str] = (),
    egress_log: Path | None = None,
    egress_trust: Path | None = None,
) -> LocalHost:
    """The host of a daemon; nothing is started yet. Its sandboxes outlive it and are adopted by the next one.

    Args:
        isolation: a level to use by default, or `auto` for the strongest that works.
        ceilings, server_uid: as in `LocalHost`.
        internal, nameservers: as in `SandboxNetworks`.
        egress_log: a file to which everything is noted that sandboxes do on the network.
        egress_trust: `trust`, as in `SandboxNetworks`.

    Raises:
        CoveError: ISOLATION_UNAVAILABLE for a level that this version has no driver for; INVALID_REQUEST when the
            data directory, or the file, cannot be used.
    """
    return _build(
        data_dir,
        run_directory(data_dir),
        isolation,
        max_sandboxes,
        embedded=False,
        ceilings=ceilings,
        server_uid=server_uid,
        internal=internal,
        nameservers=nameservers,
        egress_log=egress_log,
        egress_trust=egress_trust,
    )


@asynccontextmanager
async def embedded_host(
    data_dir: Path,
    *,
    isolation: str = "auto",
    internal: Sequence[str] = (),
    nameservers: Sequence[str] = (),
    egress_trust: Path | None = None,
) -> AsyncGenerator[LocalHost]:
    """A host inside this very process, for one command. Its sandboxes end with it, however it ends.

    Their templates' modules are not imported ahead: that pays only from the second sandbox on.
    """
    run_dir = data_dir / f"{_EMBEDDED}{os.getpid()}"
    try:
        host = _build(
            data_dir,
            run_dir,
            isolation,
            _EMBEDDED_SANDBOXES,
            embedded=True,
            internal=internal,
            nameservers=nameservers,
            egress_trust=egress_trust,
        )
        try:
            yield host
        finally:
            await host.close(destroy=True)
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
        with contextlib.suppress(CoveError, OSError):  # another user's, for example
            await clean_after_dead(data_dir)


async def clean_after_dead(data_dir: Path) -> None:
    """Remove what embedded hosts left behind that were killed: files, empty cgroups."""
    for run_dir in data_dir.glob(f"{_EMBEDDED}*"):
        if not Path(f"/proc/{run_dir.name.removeprefix(_EMBEDDED)}").exists():
            for driver in _drivers(data_dir, run_dir, embedded=True).values():
                await driver.sweep(frozenset())
            await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)


def _build(
    data_dir: Path,
    run_dir: Path,
    isolation: str,
    max_sandboxes: int,
    *,
    embedded: bool,
    ceilings: Mapping[str, int] | None = None,
    server_uid: int | None = None,
    internal: Sequence[str] = (),
    nameservers: Sequence[str] = (),
    egress_log: Path | None = None,
    egress_trust: Path | None = None,
) -> LocalHost:
    run_dir = run_dir.absolute()  # helper programs work in another directory
    _prepare(run_dir)
    if egress_trust is not None:
        _refuse_without_certificates(egress_trust)
    drivers = _drivers(data_dir, run_dir, embedded=embedded)
    authority = authority_directory(data_dir).absolute()
    secrets = SandboxSecrets(run_dir / "secrets", key=authority / "secrets.key")
    return LocalHost(
        host_id=socket.gethostname(),
        drivers=drivers,
        default_isolation=_wanted(isolation, drivers),
        records=RecordStore(run_dir / "sandboxes"),
        templates=HostTemplates(
            template_store(data_dir),
            versions=TemplateVersions(run_dir / "versions"),
            trust=TrustLayers(
                data_dir / "trust", authority=functools.partial(load_authority, authority), owner=_template_owner()
            ),
            builds=builds_directory(data_dir),
            preload=not embedded,
        ),
        max_sandboxes=max_sandboxes,
        secrets=secrets,
        networks=SandboxNetworks(
            run_dir,
            drivers,
            secrets=secrets,
            authority=authority,
            user=EGRESS_USER if os.geteuid() == 0 else None,
            internal=internal,
            nameservers=nameservers,
            log_file=EgressLogFile(egress_log) if egress_log else None,
            trust=egress_trust,
            outlives=not embedded,
        ),
        ceilings=ceilings or {},
        server_uid=server_uid,
    )


def _drivers(data_dir: Path, run_dir: Path, *, embedded: bool) -> dict[Isolation, RuntimeDriver]:
    """All that this version has; whether they work here is for their probes to say."""
    slots = new_slots()
    verdicts = data_dir.absolute() / "verdicts"
    own = gvisor_directory(run_dir)
    return {
        Isolation.GVISOR: GvisorDriver(
            own,
            checkpoints=data_dir.absolute() / "checkpoints",
            cgroups=_cgroups(own),
            disks=_disks(own),
            slots=slots,
            outlive_host=not embedded,
            verdicts=verdicts,
        ),
        Isolation.NAMESPACE: NamespaceDriver(
            run_dir,
            cgroups=_cgroups(run_dir),
            disks=_disks(run_dir),
            slots=slots,
            outlive_host=not embedded,
            verdicts=verdicts,
        ),
    }


def gvisor_directory(run_dir: Path) -> Path:
    """What the gVisor driver keeps of what runs now: each driver removes what it does not know."""
    return run_dir / "gvisor"


def _disks(run_dir: Path) -> LoopDisks | None:
    return LoopDisks(run_dir / "disks", owner=TEMPLATE_OWNER) if os.geteuid() == 0 else None


def _cgroups(run_dir: Path) -> Cgroups:
    prefix = hashlib.blake2b(str(run_dir.absolute()).encode(), digest_size=4).hexdigest() + "-"
    return Cgroups(detect(), prefix=prefix)


def _wanted(isolation: str, drivers: dict[Isolation, RuntimeDriver]) -> Isolation | None:
    if isolation == "auto":
        return None
    if isolation not in drivers:
        have = ", ".join(["auto", *drivers])
        raise error("ISOLATION_UNAVAILABLE", f"No driver for isolation '{isolation}'; there are: {have}.")
    return Isolation(isolation)


def _refuse_without_certificates(path: Path) -> None:
    """Before the egress program is needed, which would not start."""
    try:
        problem = "" if "-----BEGIN CERTIFICATE-----" in path.read_text(encoding="ascii") else "no certificate is in it"
    except (OSError, UnicodeError) as failure:
        problem = str(failure.strerror if isinstance(failure, OSError) else failure)
    if problem:
        raise error(
            "INVALID_REQUEST",
            f"The file {path} of trusted authorities cannot be used: {problem}.",
            remedy="COVE_EGRESS_TRUST names a file of certificates in PEM, which root can read.",
        )


def _prepare(run_dir: Path) -> None:
    if {":", ",", "\\"} & set(str(run_dir)):
        raise error(
            "INVALID_REQUEST",
            f"The data directory {run_dir.parent} has ':', ',' or a backslash in its path, which mount options cannot.",
            remedy="Choose another with --data-dir or COVE_DATA_DIR.",
        )
    try:
        run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as problem:
        raise error(
            "INVALID_REQUEST",
            f"The data directory {run_dir.parent} cannot be used: {problem.strerror}.",
            remedy="Choose another with --data-dir or COVE_DATA_DIR.",
        ) from problem
