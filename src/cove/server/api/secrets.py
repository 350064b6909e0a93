"""Routes of secrets: those that are kept for namespaces, and those that sandboxes have."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from cove.core.clock import utc
from cove.core.secret_changes import SecretChanges, VaultChange
from cove.core.vault import VaultEntry
from cove.models.secrets import (
    VAULT_NAME_PATTERN,
    BoundSecret,
    SandboxSecretAnswer,
    SetSandboxSecret,
    SetVaultSecret,
    VaultSecret,
    VaultSecretAnswer,
    VaultSecretList,
)
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of

_KEPT = "/v1/secrets/{secret}"
_OF_SANDBOX = "/v1/sandboxes/{sandbox_id}/secrets/{variable}"
_Name = Annotated[str, Path(pattern=VAULT_NAME_PATTERN)]


def secret_routes(secrets: SecretChanges) -> APIRouter:
    """The routes, over this object."""
    router = APIRouter(tags=["secrets"])
    _add_kept(router, secrets)
    _add_of_sandboxes(router, secrets)
    return router


def _add_kept(router: APIRouter, secrets: SecretChanges) -> None:
    @router.get("/v1/secrets", response_model=VaultSecretList)
    async def list_secrets(request: Request) -> Response:
        """List the secrets that are kept for the namespace, by name. Values are never shown."""
        found = await secrets.list(principal_of(request.scope))
        return answer(
            VaultSecretList(
                data=tuple(VaultSecret.model_validate(_facts(entry)) for entry in found),
                request_id=request_id_of(request.scope),
            )
        )

    @router.put(_KEPT, response_model=VaultSecretAnswer)
    async def set_secret(request: Request, secret: _Name, body: SetVaultSecret) -> Response:
        """Keep a secret for the namespace, or change it. Sandboxes that use it have the new value at once, without a
        restart: programs see the same placeholder as before."""
        change = await secrets.put(principal_of(request.scope), secret, body)
        return _changed(request, change, deleted=False)

    @router.delete(_KEPT, response_model=VaultSecretAnswer)
    async def delete_secret(
        request: Request,
        secret: _Name,
        force: Annotated[bool, Query(description="Withdraw it from sandboxes that use it, at once.")] = False,
    ) -> Response:
        """Delete a secret of the namespace. While sandboxes use it, it is refused without `force`."""
        change = await secrets.remove(principal_of(request.scope), secret, force=force)
        return _changed(request, change, deleted=True)


def _add_of_sandboxes(router: APIRouter, secrets: SecretChanges) -> None:
    @router.put(_OF_SANDBOX, response_model=SandboxSecretAnswer)
    async def set_sandbox_secret(request: Request, sandbox_id: str, variable: str, body: SetSandboxSecret) -> Response:
        """Give a secret of a sandbox, whose value came with its creation, another value, at once."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        changed = await secrets.change(principal_of(request.scope), sandbox_id, variable, body.value)
        return _of_sandbox(request, sandbox_id, variable, changed)

    @router.delete(_OF_SANDBOX, response_model=SandboxSecretAnswer)
    async def withdraw_sandbox_secret(request: Request, sandbox_id: str, variable: str) -> Response:
        """Take a secret away from a sandbox, at once: its placeholder stands for nothing any more. Idempotent."""
        bind_contextvars(sandbox_id=sandbox_id[:32])
        changed = await secrets.withdraw(principal_of(request.scope), sandbox_id, variable)
        return _of_sandbox(request, sandbox_id, variable, changed)


def _facts(entry: VaultEntry) -> dict[str, object]:
    kept = entry.secret
    return {
        "name": kept.name,
        "hosts": kept.hosts,
        "places": kept.places,
        "created_at": utc(kept.created_at),
        "updated_at": utc(kept.updated_at),
        "sandboxes": len(entry.users),
    }


def _changed(request: Request, change: VaultChange, *, deleted: bool) -> Response:
    facts = _facts(change.entry)
    request_id = request_id_of(request.scope)
    return answer(
        VaultSecretAnswer.model_validate(
            {**facts, "behind": change.behind, "deleted": deleted, "request_id": request_id}
        )
    )


def _of_sandbox(request: Request, sandbox_id: str, variable: str, secret: BoundSecret) -> Response:
    facts = secret.model_dump(exclude={"placeholder"})
    return answer(SandboxSecretAnswer(id=sandbox_id, name=variable, request_id=request_id_of(request.scope), **facts))
