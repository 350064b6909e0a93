"""A sandbox's change of state, with what it means for the programs inside."""

from cove.core.storage import UnitOfWork
from cove.models.sandboxes import SandboxStatus
from cove.models.stored import StoredSandbox


def transit(
    work: UnitOfWork, sandbox_id: str, *, sources: frozenset[SandboxStatus], target: SandboxStatus
) -> StoredSandbox | None:
    """Move a sandbox to `target` if it is in one of `sources`; the row after the change, or None.

    Stopping ends its programs, and the agent that is started later knows nothing of them: asynchronous executions that
    may have begun are marked in the same transaction, so that none is begun a second time.
    """
    row = work.sandboxes.transition(sandbox_id, sources=sources, target=target)
    if row is not None and target is SandboxStatus.STOPPED:
        work.executions.interrupt(sandbox_id)
    return row
