"""What a host cannot give: found out before anything is started, and said where it is allowed to be missing."""

import asyncio
from typing import Final

import structlog

from cove.core.ports import Host
from cove.models.errors import error
from cove.models.hosts import SandboxRecord
from cove.models.isolation import Isolation

_CHECK_SECONDS: Final = 60.0
_NOT_TRIED: Final = frozenset({None, Isolation.NAMESPACE, Isolation.FAKE})


async def require(host: Host, level: Isolation | None) -> None:
    """Refuse to serve with a level of isolation that the host does not have.

    Only a level that needs something beside the kernel is tried: trying takes time, which every start would pay, and
    without namespaces the first create says what is missing.

    Raises:
        CoveError: ISOLATION_UNAVAILABLE, with the reason and the remedy; HOST_UNAVAILABLE.
    """
    if level in _NOT_TRIED:
        return
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            reports = await host.check()
    except TimeoutError:
        raise error("HOST_UNAVAILABLE", "The host did not say in time which isolation it has.") from None
    report = next((report for report in reports if report.isolation is level), None)
    if report is not None and report.available:
        return
    why = " ".join(report.problems) if report else "this version has no driver for it."
    raise error(
        "ISOLATION_UNAVAILABLE",
        f"Isolation '{level}' is insisted on, and does not work here: {why}",
        remedy=" ".join(report.remedies) if report else "",
        isolation=str(level),
    )


class Unenforced:
    """Says once in the log that sandboxes run without some of their limits."""

    def __init__(self) -> None:
        self._said = False
        self._log = structlog.get_logger("cove.limits")

    def note(self, record: SandboxRecord) -> None:
        """A sandbox has been started."""
        if record.unenforced and not self._said:
            self._said = True
            self._log.warning(
                "limits_not_enforced",
                limits=",".join(record.unenforced),
                remedy="run as root, or with delegated control groups; `cove doctor` says how",
            )
