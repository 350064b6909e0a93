# Generated from src/cove/sdk/_async/cache.py by tools/generate_sync_sdk.py. Do not edit.

"""What the agent keeps to be quicker."""

from typing import Any

from cove.sdk import _requests as requests
from cove.sdk._failures import parse_object
from cove.sdk._sync.agent import AgentLink


class Cache:
    """The agent's cache."""

    def __init__(self, link: AgentLink) -> None:
        self._link = link

    def stats(self) -> dict[str, Any]:
        """Hits, misses, size."""
        return parse_object(self._link.send(requests.get("/cache/stats")))

    def clear(self) -> dict[str, Any]:
        """Forget all of it; says how much that was."""
        return parse_object(self._link.send(requests.Call(method="POST", path="/cache/clear")))
