"""The way out of this host's sandboxes: who has one, and within which policy."""

import functools
import socket
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from cove.drivers.base import RuntimeDriver
from cove.host.authority import load_authority
from cove.hostd.egress import Egress
from cove.hostd.egress_log import EgressLogFile
from cove.hostd.secrets import SandboxSecrets
from cove.models.errors import CoveError, error
from cove.models.hosts import HostState, SandboxRecord
from cove.models.isolation import Isolation
from cove.models.network import EgressPolicy, EgressTotals, EnforcedPolicy, NetworkReport
from cove.models.secrets import EgressSecret


class SandboxNetworks:
    """Opens, changes and closes networks; a policy is in force for a running sandbox, or the sandbox has none."""

    def __init__(
        self,
        run_dir: Path,
        drivers: Mapping[Isolation, RuntimeDriver],
        *,
        secrets: SandboxSecrets,
        authority: Path,
        user: int | None,
        internal: Sequence[str] = (),
        nameservers: Sequence[str] = (),
        trust: Path | None = None,
        log_file: EgressLogFile | None = None,
        outlives: bool = True,
    ) -> None:
        """
        Args:
            secrets: of this host's sandboxes.
            authority: the directory of the authority (`cove.host.authority`).
            internal: rules for what may be reached although its addresses are not public: the operator's word, given
                to the host itself, so that no control plane can widen it.
            user, nameservers, trust, log_file, outlives: as in `Egress`.
        """
        self._drivers = drivers
        self._internal = tuple(internal)
        self._records: dict[str, SandboxRecord] = {}
        self._secrets = secrets
        self._egress = Egress(
            run_dir,
            capture=self._capture,
            secrets_of=secrets.of,
            authority=functools.partial(load_authority, authority),
            user=user,
            nameservers=nameservers,
            trust=trust,
            log_file=log_file,
            outlives=outlives,
        )

    def refuse_unless_possible(self, driver: RuntimeDriver, policy: EgressPolicy | None) -> None:
        """Before anything is touched.

        Raises:
            CoveError: UNSUPPORTED: sandboxes of this driver have no network.
        """
        if policy is not None and not policy.is_closed and not driver.capabilities.internet:
            raise error(
                "UNSUPPORTED",
                f"Sandboxes with {driver.isolation} isolation have no network on this host.",
                remedy="Ask for isolation: namespace, or for no network.",
            )

    async def apply(self, record: SandboxRecord, policy: EgressPolicy | None) -> None:
        """Put a policy in force for a sandbox that runs; None: it has no network.

        Raises:
            CoveError: UNSUPPORTED, HOST_UNAVAILABLE.
        """
        policy = policy or EgressPolicy()
        self.refuse_unless_possible(self._drivers[record.isolation], policy)
        self._records[record.sandbox_id] = record
        await self._egress.apply(record.sandbox_id, self._enforced(record, policy))

    async def set_secrets(self, sandbox_id: str, changed: Iterable[EgressSecret], removed: Collection[str]) -> None:
        """See `core.ports.Host`; what is written down is what a program of the next minute is told."""
        self._secrets.merge(sandbox_id, changed, removed)
        await self._egress.refresh_secrets(sandbox_id)

    async def report(self, record: SandboxRecord, *, after: int) -> NetworkReport:
        """What the sandbox did since it runs.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        report = await self._egress.report(record.sandbox_id, after=after)
        return report.model_copy(update={"policy": record.network})

    async def totals(self, sandbox_id: str | None = None) -> EgressTotals:
        """Sums, of a sandbox or of all since the egress program runs.

        Raises:
            CoveError: HOST_UNAVAILABLE.
        """
        return await self._egress.totals(sandbox_id)

    async def forget(self, sandbox_id: str) -> None:
        """It does not run any more. Idempotent."""
        self._records.pop(sandbox_id, None)
        await self._egress.forget(sandbox_id)

    async def adopt(self, records: Iterable[SandboxRecord]) -> None:
        """Go on where an earlier daemon was; what it had opened and is not open any more is opened again."""
        records = tuple(records)
        wanted = {
            record.sandbox_id: self._enforced(record, record.network)
            for record in records
            if record.network is not None and record.state is not HostState.STOPPED
        }
        self._records = {record.sandbox_id: record for record in records if record.sandbox_id in wanted}
        await self._egress.adopt(wanted)

    async def close(self, *, end: bool) -> None:
        """Let go; with `end`, no sandbox has a network any more."""
        await self._egress.close(end=end)

    def _enforced(self, record: SandboxRecord, policy: EgressPolicy) -> EnforcedPolicy:
        mbps = record.limits.network_mbps
        return EnforcedPolicy(allow=policy.allow, deny=policy.deny, internal=self._internal, network_mbps=mbps)

    async def _capture(self, sandbox_id: str) -> Sequence[socket.socket]:
        record = self._records.get(sandbox_id)
        if record is None:
            raise _gone(sandbox_id)
        return await self._drivers[record.isolation].capture(record)


def _gone(sandbox_id: str) -> CoveError:
    return error("SANDBOX_NOT_FOUND", f"Sandbox {sandbox_id} does not run.")
