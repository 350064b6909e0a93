"""What a sandbox may reach on the network, and what it did there."""

from collections.abc import Callable, Sequence

from cove.models.errors import error
from cove.models.network import EgressPolicy, NetworkPreset, SandboxNetwork
from cove.sdk._async.control import AsyncControlPlane


class AsyncNetwork:
    """The network of one sandbox."""

    def __init__(
        self, control: AsyncControlPlane, sandbox_id: str, changed: Callable[[EgressPolicy | None], None]
    ) -> None:
        """`changed` is told each policy that the server says is in force."""
        self._control = control
        self._sandbox_id = sandbox_id
        self._changed = changed

    async def get(self, *, after: int = 0) -> SandboxNetwork:
        """The policy in force, totals, and the latest connections and look-ups, oldest first.

        Args:
            after: only entries with a sequence number above this one.
        """
        report = await self._control.network(self._sandbox_id, after=after)
        self._changed(report.policy)
        return report

    async def update(
        self,
        *,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] | None = None,
        preset: NetworkPreset | str | None = None,
    ) -> EgressPolicy | None:
        """Put another policy in force, instead of the one before. It holds when this returns; connections that it does
        not allow are cut.

        Args:
            allow: what may be reached: `api.example.com`, `*.example.com`, `192.0.2.0/24:5432`, `*`; an empty list is
                nothing.
            deny: what may not be reached although it is allowed; without `allow` and `preset`, of the public internet.
            preset: `none`, `public` or `package-registries`; `allow` adds to it.

        Returns:
            What is in force: rules only. None when nothing can be reached.

        Raises:
            InvalidRequest: there can be no such policy, or none is given.
            Unsupported: sandboxes of this isolation have no network.
        """
        given = {"allow": allow, "deny": deny, "preset": preset}
        policy = {name: value for name, value in given.items() if value is not None}
        if not policy:
            raise error(
                "INVALID_REQUEST",
                "No policy is given.",
                remedy="Give allow, deny or preset; preset='none' closes the network.",
            )
        in_force = (await self._control.set_network(self._sandbox_id, policy)).policy
        self._changed(in_force)
        return in_force
