"""Secrets: those that the server keeps for a namespace, and those of one sandbox."""

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from cove.models.secrets import (
    SandboxSecretAnswer,
    SecretPlace,
    SetSandboxSecret,
    SetVaultSecret,
    VaultSecret,
    VaultSecretAnswer,
    VaultSecretList,
)
from cove.sdk import _requests as requests
from cove.sdk._failures import parse

if TYPE_CHECKING:
    from cove.sdk._async.control import AsyncControlPlane


class AsyncVault:
    """The secrets that the server keeps for the key's namespace. Values go in and never come out."""

    def __init__(self, control: "AsyncControlPlane") -> None:
        """For `AsyncControlPlane.vault`."""
        self._control = control

    async def set(
        self,
        name: str,
        value: str,
        *,
        hosts: Iterable[str] | None = None,
        places: Iterable[SecretPlace | str] | None = None,
    ) -> VaultSecretAnswer:
        """Keep a secret, or change it. Sandboxes that use it have the new value when this returns (but for those that
        `behind` counts), without a restart. The key needs the scope `admin`.

        Args:
            hosts: to which it may go, as `api.example.com` or `*.example.com:8443`; needed at first, then they stay.
            places: where in a request: `headers` (the default), `query`, `body`.

        Raises:
            InvalidRequest: it is no secret, or its hosts are missing.
            LimitExceeded: the namespace has too many.
        """
        given = {"hosts": hosts, "places": places}
        fields = {field: tuple(words) for field, words in given.items() if words is not None}
        build = partial(SetVaultSecret, value=value, **fields)
        call = requests.with_secrets("PUT", requests.secret_path(name), build)
        return parse(VaultSecretAnswer, await self._control.send(call))

    async def list(self) -> tuple[VaultSecret, ...]:
        """All of them, by name: for which hosts they are and how many sandboxes use them."""
        return parse(VaultSecretList, await self._control.send(requests.get("/v1/secrets"))).data

    async def delete(self, name: str, *, force: bool = False) -> VaultSecretAnswer:
        """Forget a secret. The key needs the scope `admin`.

        Args:
            force: withdraw it from sandboxes that use it, at once.

        Raises:
            NotFound: there is none of this name.
            Conflict: sandboxes use it, and `force` is not given.
        """
        path = requests.with_query(requests.secret_path(name), force="true" if force else None)
        return parse(VaultSecretAnswer, await self._control.send(requests.Call(method="DELETE", path=path)))


class AsyncSandboxSecrets:
    """The secrets of one sandbox. Its programs see placeholders; `info.secrets` says what they are for."""

    def __init__(self, control: "AsyncControlPlane", sandbox_id: str) -> None:
        """For `AsyncSandbox.secrets`."""
        self._control = control
        self._sandbox_id = sandbox_id

    async def set(self, name: str, value: str) -> SandboxSecretAnswer:
        """Give one, whose value came with `create`, another value, at once and without a restart.

        Args:
            name: of the variable.

        Raises:
            NotFound: the sandbox has no such secret.
            Conflict: its value is the vault's: change that one (`ControlPlane.vault`).
        """
        path = requests.secret_path(name, self._sandbox_id)
        call = requests.with_secrets("PUT", path, partial(SetSandboxSecret, value=value))
        return parse(SandboxSecretAnswer, await self._control.send(call))

    async def withdraw(self, name: str) -> SandboxSecretAnswer:
        """Take one away, at once: its placeholder stands for nothing any more.

        Raises:
            NotFound: the sandbox has no such secret.
        """
        path = requests.secret_path(name, self._sandbox_id)
        call = requests.Call(method="DELETE", path=path, retry=requests.Retry.IDEMPOTENT)
        return parse(SandboxSecretAnswer, await self._control.send(call))
