"""Whom a credential stands for, whatever kind it is of."""

from dataclasses import replace

from cove.core.clock import Clock
from cove.core.delegated_keys import DelegatedKeys, is_delegated
from cove.core.keys import ApiKeys, is_key_id
from cove.core.microsandbox_tokens import MicrosandboxTokens, is_microsandbox_token
from cove.core.namespace_access import NamespaceAccess
from cove.core.principal import Principal
from cove.models.errors import CoveError, error


class Credentials:
    """API keys, keys that this server delegates, and keys of a microsandbox server whose signing key is known.

    Args:
        foreign: None where no such key is known.
    """

    def __init__(
        self,
        keys: ApiKeys,
        delegated: DelegatedKeys,
        namespaces: NamespaceAccess,
        *,
        foreign: MicrosandboxTokens | None,
        clock: Clock,
    ) -> None:
        self._keys = keys
        self._delegated = delegated
        self._namespaces = namespaces
        self._foreign = foreign
        self._clock = clock

    async def principal_of(self, key: str) -> Principal:
        """Whoever holds it.

        Raises:
            CoveError: AUTHENTICATION_REQUIRED.
        """
        if is_delegated(key):
            return await self._delegate(key)
        if self._foreign is not None and is_microsandbox_token(key):
            principal = self._foreign.principal_of(key)
            return await self._namespaces.placed(principal, principal.namespace, making=True)
        return await self._keys.verify(key)

    async def _delegate(self, key: str) -> Principal:
        """A delegated key ends with what it was made from, and never may more than that may now."""
        principal = self._delegated.principal_of(key)
        if principal is None:
            raise _refused("The key is not known here: what it was made for has ended.")
        if principal.expires_at is not None and principal.expires_at <= self._clock():
            raise _refused("The key behind this one has expired.")
        if is_key_id(principal.actor):
            source = await self._keys.principal_of(principal.actor)
            principal = replace(principal, scopes=principal.scopes & source.scopes, key_quota=source.key_quota)
        return await self._namespaces.placed(principal, principal.namespace, making=False)


def _refused(message: str) -> CoveError:
    return error("AUTHENTICATION_REQUIRED", message)
