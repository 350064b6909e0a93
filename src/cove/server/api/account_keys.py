"""Routes of API keys and of usage (contract 2.5), for the holder of a key."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cove.core.accounts import Accounts
from cove.core.clock import Clock, rfc3339
from cove.core.principal import Principal
from cove.core.quotas import Quotas
from cove.core.usage import MAX_DAYS, UsageReport
from cove.models.account import (
    ApiKeyAnswer,
    ApiKeyInfo,
    ApiKeyPage,
    CreateApiKey,
    CreatedApiKey,
    CurrentUsage,
    Plan,
    PlanPage,
    UsageAnswer,
    UsageDay,
    UsageHistory,
    UsageLimits,
)
from cove.models.limits import Limits
from cove.models.stored import StoredKey, StoredUsage
from cove.server.api.answers import answer
from cove.server.api.context import principal_of, request_id_of

_Days = Annotated[int, Query(ge=1, le=MAX_DAYS)]
_GB = 1024


def key_routes(accounts: Accounts, *, clock: Clock) -> APIRouter:
    """API keys."""
    router = APIRouter(tags=["account"])
    one = "/auth/api-keys/{key_id}"

    @router.get("/auth/api-keys", response_model=ApiKeyPage)
    async def list_keys(request: Request) -> Response:
        """The namespace's keys that were not revoked, without their secrets."""
        found = tuple(_key(key, clock()) for key in await accounts.keys(principal_of(request.scope)))
        return answer(ApiKeyPage(api_keys=found, count=len(found), request_id=request_id_of(request.scope)))

    @router.post("/auth/api-keys", response_model=CreatedApiKey)
    async def create_key(request: Request, body: CreateApiKey) -> Response:
        """Make a key in the caller's namespace. It is shown once, in this answer."""
        scopes = None if body.scopes is None else frozenset(body.scopes)
        made = await accounts.create_key(principal_of(request.scope), body.name, body.expires_in, scopes)
        return answer(
            CreatedApiKey(
                message="The key was made. Keep it: it is not shown again.",
                api_key=_key(made.stored, clock()),
                full_key=made.key,
                request_id=request_id_of(request.scope),
            )
        )

    @router.get(one, response_model=ApiKeyAnswer)
    async def get_key(request: Request, key_id: str) -> Response:
        """One key, without its secret."""
        found = await accounts.key(principal_of(request.scope), key_id)
        return answer(ApiKeyAnswer(api_key=_key(found, clock()), request_id=request_id_of(request.scope)))

    @router.delete(one, response_model=ApiKeyAnswer)
    async def revoke_key(request: Request, key_id: str) -> Response:
        """Make a key useless, at once."""
        revoked = await accounts.revoke_key(principal_of(request.scope), key_id)
        return answer(
            ApiKeyAnswer(
                message="The key was revoked.", api_key=_key(revoked, clock()), request_id=request_id_of(request.scope)
            )
        )

    return router


def usage_routes(report: UsageReport, quotas: Quotas, *, most: Limits) -> APIRouter:
    """Limits and use. `most` is what any one sandbox of this server may ask for."""
    router = APIRouter(tags=["account"])

    @router.get("/auth/usage", response_model=UsageAnswer)
    async def get_usage(request: Request) -> Response:
        """What the namespace may use, and what it uses now."""
        principal = principal_of(request.scope)
        now = quotas.usage_of(principal)
        current = CurrentUsage(
            active_sandboxes=now.sandboxes,
            total_vcpu=now.vcpu,
            total_memory_mb=now.memory_mb,
            total_disk_gb=_in_gb(now.disk_mb),
        )
        limits = _limits(principal, quotas, most)
        return answer(UsageAnswer(limits=limits, current_usage=current, request_id=request_id_of(request.scope)))

    @router.get("/auth/plans", response_model=PlanPage)
    async def list_plans(request: Request) -> Response:
        """The one that there is, with the caller's limits."""
        limits = _limits(principal_of(request.scope), quotas, most)
        plan = Plan(
            max_concurrent_sandboxes=limits.max_concurrent_sandboxes,
            max_total_vcpu=limits.max_total_vcpu,
            max_total_memory_mb=limits.max_total_memory_mb,
        )
        return answer(PlanPage(plans=(plan,), request_id=request_id_of(request.scope)))

    @router.get("/auth/usage/history/sandboxes", response_model=UsageHistory)
    async def sandbox_history(request: Request, days: _Days = 7) -> Response:
        """How many sandboxes existed on each day."""
        principal = principal_of(request.scope)
        live = quotas.usage_of(principal).sandboxes
        found = await report.sandboxes(principal.namespace, live=live, days=days)
        return _history(request, tuple(UsageDay(date=day.date, active_vms=count) for day, count in found.items()))

    @router.get("/auth/usage/history/cost", response_model=UsageHistory)
    async def cost_history(request: Request, days: _Days = 7) -> Response:
        """Nothing costs anything."""
        return _history(request, tuple(UsageDay(date=day.date, cost_usd=0.0) for day in report.days(days)))

    @router.get("/auth/usage/history/resources", response_model=UsageHistory)
    async def resource_history(
        request: Request, type: Literal["cpu", "ram", "disk"] = "cpu", days: _Days = 7
    ) -> Response:
        """Limits times hours on each day: vCPU hours, or GB hours; for the last seven days at most."""
        found = await report.resources(principal_of(request.scope).namespace, days=days)
        return _history(
            request, tuple(UsageDay(date=day.date, total_usage=_figure(used, type)) for day, used in found.items())
        )

    return router


def _limits(principal: Principal, quotas: Quotas, most: Limits) -> UsageLimits:
    own = quotas.ceilings(principal)
    sandboxes = quotas.most_sandboxes(principal)
    vcpu = min(most.vcpu, most.vcpu if own.max_vcpu is None else own.max_vcpu)
    memory = min(most.memory_mb, most.memory_mb if own.max_memory_mb is None else own.max_memory_mb)
    disk = min(most.disk_mb, most.disk_mb if own.max_disk_mb is None else own.max_disk_mb)
    return UsageLimits(
        max_concurrent_sandboxes=sandboxes,
        max_total_vcpu=sandboxes * vcpu if own.max_total_vcpu is None else own.max_total_vcpu,
        max_total_memory_mb=sandboxes * memory if own.max_total_memory_mb is None else own.max_total_memory_mb,
        max_total_disk_gb=_in_gb(sandboxes * disk if own.max_total_disk_mb is None else own.max_total_disk_mb),
        max_vcpu_per_sandbox=vcpu,
        max_memory_mb_per_sandbox=memory,
        max_disk_gb_per_sandbox=_in_gb(disk),
    )


def _figure(used: StoredUsage, kind: str) -> float:
    figures = {"cpu": used.vcpu_hours, "ram": used.memory_gb_hours, "disk": used.disk_gb_hours}
    return round(figures[kind], 2)


def _in_gb(megabytes: int) -> float:
    return round(megabytes / _GB, 2)


def _key(key: StoredKey, now: float) -> ApiKeyInfo:
    expired = key.expires_at is not None and key.expires_at <= now
    return ApiKeyInfo(
        id=key.id,
        key_id=key.id,
        name=key.name,
        prefix=key.prefix + key.id,
        masked_key=f"{key.prefix}{key.id}.***",
        scopes=tuple(sorted(key.scopes)),
        status="revoked" if key.revoked_at is not None else "expired" if expired else "active",
        created_at=rfc3339(key.created_at),
        expires_at=None if key.expires_at is None else rfc3339(key.expires_at),
        last_used_at=None if key.last_used_at is None else rfc3339(key.last_used_at),
    )


def _history(request: Request, days: tuple[UsageDay, ...]) -> Response:
    """Only the figure that was asked for: the others would be null."""
    page = UsageHistory(data=days, request_id=request_id_of(request.scope))
    return Response(page.model_dump_json(exclude_none=True), media_type="application/json")
