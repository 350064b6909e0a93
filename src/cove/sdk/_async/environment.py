"""Environment variables of a whole sandbox."""

from collections.abc import Mapping

from cove.models.environment import EnvironmentAnswer
from cove.sdk import _requests as requests
from cove.sdk._async.agent import AsyncAgentLink
from cove.sdk._failures import parse


class AsyncEnvironment:
    """Variables that everything in the sandbox sees from its next start on; those of a single call win over them."""

    def __init__(self, link: AsyncAgentLink) -> None:
        self._link = link

    async def get_all(self) -> dict[str, str]:
        """Those that were set; the template's own are not among them."""
        return await self._send(requests.get("/env"))

    async def set_all(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Replace all of them; returns what is set now."""
        return await self._send(requests.change_environment("PUT", variables))

    async def update(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Set some and keep the others; returns what is set now."""
        return await self._send(requests.change_environment("PATCH", variables))

    async def get(self, name: str, default: str | None = None) -> str | None:
        """One variable."""
        return (await self.get_all()).get(name, default)

    async def set(self, name: str, value: str) -> None:
        """Set one."""
        await self.update({name: value})

    async def delete(self, name: str) -> None:
        """Unset one; a missing one is fine. The wire can only replace all, so a change by another at the same moment
        is lost.
        """
        variables = await self.get_all()
        if name in variables:
            await self.set_all({key: value for key, value in variables.items() if key != name})

    async def _send(self, call: requests.Call) -> dict[str, str]:
        return dict(parse(EnvironmentAnswer, await self._link.send(call)).env_vars)
