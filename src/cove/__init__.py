"""Cove: self-hosted code-execution sandboxes for AI agents."""

from typing import TYPE_CHECKING, Any

from cove.models.version import VERSION

if TYPE_CHECKING:
    from cove.models.errors import CoveError
    from cove.sdk import AsyncSandbox, Sandbox

__version__ = VERSION
__all__ = ["AsyncSandbox", "CoveError", "Sandbox", "__version__"]


def __getattr__(name: str) -> Any:
    """Load the client when it is first named: the agent and the daemons import this package without it (PEP 562)."""
    if name in ("AsyncSandbox", "Sandbox"):
        from cove import sdk

        return getattr(sdk, name)
    if name == "CoveError":
        from cove.models import errors

        return errors.CoveError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
