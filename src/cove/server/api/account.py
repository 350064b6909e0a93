"""Routes of the account (contract 2.5): login, profile, organization, members, plans, billing.

Clients of a cloud service expect them. Here an account is an API key, an organization its namespace, and money does not
exist.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from cove.core.accounts import Accounts
from cove.core.clock import rfc3339
from cove.core.keys import ApiKeys
from cove.core.principal import DEVELOPER, Principal
from cove.core.sessions import Sessions
from cove.models.account import (
    Done,
    Invitation,
    Login,
    Member,
    MemberPage,
    Organization,
    OrganizationEntry,
    OrganizationPage,
    Profile,
    Refresh,
    RenameOrganization,
    SessionAnswer,
    SwitchOrganization,
    UpdateProfile,
)
from cove.models.errors import CoveError, error
from cove.models.stored import StoredKey, StoredNamespace
from cove.server.api.answers import answer
from cove.server.api.context import header_of, principal_of, request_id_of
from cove.server.api.failed_attempts import FailedAttempts

_Limit = Annotated[int, Query(ge=1, le=1000)]
_DEVELOPERS_TOKEN = "dev"  # noqa: S105 (with --dev every token will do)


def account_routes(
    accounts: Accounts, keys: ApiKeys, sessions: Sessions, attempts: FailedAttempts, *, dev: bool
) -> APIRouter:
    """The routes, over these objects."""
    router = APIRouter(tags=["account"])
    _add_login(router, keys, sessions, attempts, dev)
    _add_profile(router, accounts)
    _add_organization(router, accounts)
    _add_members(router, accounts)
    _add_billing(router)
    return router


def _add_login(router: APIRouter, keys: ApiKeys, sessions: Sessions, attempts: FailedAttempts, dev: bool) -> None:
    @router.post("/auth/workos-callback", response_model=SessionAnswer)
    async def log_in(request: Request, body: Login) -> Response:
        """Open a session with an API key, given as the code that `hopx auth login --no-browser` asks for."""
        if dev:
            return _developers_session(request, sessions)
        try:
            principal = await keys.verify(body.code.strip())
        except CoveError as failure:
            raise attempts.noted(request.scope, failure) from failure
        opened = sessions.open(principal.actor)
        return _session(request, opened.access_token, opened.refresh_token, opened.expires_at)

    @router.post("/auth/refresh", response_model=SessionAnswer)
    async def refresh_session(request: Request, body: Refresh) -> Response:
        """Prolong a session. The refresh token stays the same; the key behind it has to be in force."""
        if dev:
            return _developers_session(request, sessions)
        try:
            principal = await keys.principal_of(sessions.key_of_refresh(body.refresh_token))
        except CoveError as failure:
            raise attempts.noted(request.scope, failure) from failure
        opened = sessions.open(principal.actor)
        return _session(request, opened.access_token, body.refresh_token, opened.expires_at)


def _add_profile(router: APIRouter, accounts: Accounts) -> None:
    @router.get("/auth/me", response_model=Profile)
    async def get_profile(request: Request) -> Response:
        """Who asks: the key, by its name."""
        me = await accounts.me(principal_of(request.scope))
        first, last = _names(me.key.name if me.key else "Developer")
        return answer(
            Profile(
                user_id=me.principal.actor,
                email=_address(me.principal.actor, me.principal.namespace),
                first_name=first,
                last_name=last,
                role=_role(me.principal),
                organization_id=me.principal.organization_id,
                request_id=request_id_of(request.scope),
            )
        )

    @router.put("/auth/profile", response_model=Done)
    async def update_profile(request: Request, body: UpdateProfile) -> Response:
        """Change the key's name, the first word or the rest of it."""
        principal = principal_of(request.scope)
        me = await accounts.me(principal)
        first, last = _names(me.key.name if me.key else "")
        name = f"{first if body.first_name is None else body.first_name} "
        name += last if body.last_name is None else body.last_name
        await accounts.rename_me(principal, name.strip())
        return _done(request, "The profile, which is the key's name, was updated.")


def _add_organization(router: APIRouter, accounts: Accounts) -> None:
    @router.get("/auth/organization", response_model=Organization)
    async def get_organization(request: Request) -> Response:
        """The key's namespace."""
        return _organization(request, await accounts.organization(principal_of(request.scope)))

    @router.put("/auth/organization", response_model=Organization)
    async def rename_organization(request: Request, body: RenameOrganization) -> Response:
        """Change what people call the namespace."""
        return _organization(request, await accounts.rename_organization(principal_of(request.scope), body.name))

    @router.get("/auth/user/organizations", response_model=OrganizationPage)
    async def list_organizations(request: Request) -> Response:
        """The namespaces that the key belongs to: its own."""
        principal = principal_of(request.scope)
        own = await accounts.organization(principal)
        entry = OrganizationEntry(id=own.id, name=own.display_name, role=_role(principal))
        return answer(OrganizationPage(data=(entry,), request_id=request_id_of(request.scope)))

    @router.post("/auth/organization/switch", response_model=Done)
    async def switch_organization(request: Request, body: SwitchOrganization) -> Response:
        """Nothing to do for the key's own namespace; every other one is unknown to it."""
        own = await accounts.organization(principal_of(request.scope))
        if body.organization_id != own.id:
            raise error(
                "RESOURCE_NOT_FOUND",
                f"There is no organization {body.organization_id}.",
                remedy="A key belongs to one namespace: log in with a key of another one.",
            )
        return _done(request, f"This key belongs to organization {own.id}.")


def _add_members(router: APIRouter, accounts: Accounts) -> None:
    @router.get("/auth/members", response_model=MemberPage)
    async def list_members(request: Request) -> Response:
        """The namespace's keys in force, as its members."""
        found = await accounts.keys(principal_of(request.scope))
        return answer(MemberPage(data=tuple(map(_member, found)), request_id=request_id_of(request.scope)))

    @router.post("/auth/members/invite", response_model=Done)
    async def invite_member(request: Request, body: Invitation) -> Response:
        """Not possible: this server sends no mail. Make a key for them instead."""
        refusal = error(
            "UNSUPPORTED",
            "This server sends no mail, so nobody can be invited.",
            remedy="Make an API key for them and hand it over: hopx auth keys create --name NAME.",
        )
        return _refused_as_the_cli_shows_it(request, refusal)

    @router.delete("/auth/members/{member_id}", response_model=Done)
    async def remove_member(request: Request, member_id: str) -> Response:
        """Revoke a key, which is a member."""
        await accounts.revoke_key(principal_of(request.scope), member_id)
        return _done(request, "The key was revoked.")


def _add_billing(router: APIRouter) -> None:
    @router.get("/auth/billing/credit/balance")
    async def get_balance() -> dict[str, Any]:
        """Nothing is charged, so there is no credit."""
        return {"balance_usd": "$0.00", "balance_cents": 0, "currency": "usd"}

    @router.get("/auth/billing/history")
    async def list_transactions(limit: _Limit = 20) -> dict[str, Any]:
        """There are none."""
        return {"transactions": []}

    @router.get("/auth/billing/invoices")
    async def list_invoices(limit: _Limit = 10) -> dict[str, Any]:
        """There are none."""
        return {"invoices": []}

    @router.get("/auth/billing/auto-recharge")
    async def get_auto_recharge() -> dict[str, Any]:
        """It is off."""
        amounts = ("threshold_cents", "recharge_to_cents", "monthly_limit_cents", "current_month_recharged_cents")
        return {"enabled": False, **dict.fromkeys(amounts, 0)}


def _refused_as_the_cli_shows_it(request: Request, refusal: CoveError) -> Response:
    """hopx-cli shows the text of a refusal only when it comes with 200; of another status it shows the number."""
    if not (header_of(request.scope, b"user-agent") or "").startswith("python-httpx/"):
        raise refusal
    refused = Done(success=False, message=str(refusal), code=refusal.code, request_id=request_id_of(request.scope))
    return answer(refused)


def _developers_session(request: Request, sessions: Sessions) -> Response:
    opened = sessions.open(DEVELOPER.actor)
    return _session(request, _DEVELOPERS_TOKEN, _DEVELOPERS_TOKEN, opened.expires_at)


def _session(request: Request, access: str, refresh: str, expires_at: int) -> Response:
    return answer(
        SessionAnswer(
            access_token=access, refresh_token=refresh, expires_at=expires_at, request_id=request_id_of(request.scope)
        )
    )


def _organization(request: Request, stored: StoredNamespace) -> Response:
    return answer(
        Organization(
            id=stored.id,
            name=stored.display_name,
            slug=stored.name,
            created_at=rfc3339(stored.created_at),
            request_id=request_id_of(request.scope),
        )
    )


def _member(key: StoredKey) -> Member:
    first, last = _names(key.name)
    role = "admin" if key.quota.is_open else "member"
    return Member(id=key.id, email=_address(key.id, key.namespace), first_name=first, last_name=last, role=role)


def _role(principal: Principal) -> Any:
    return "member" if principal.is_confined else "admin"


def _names(name: str) -> tuple[str, str]:
    first, _, last = name.partition(" ")
    return first, last


def _address(key_id: str, namespace: str) -> str:
    return f"{key_id}@{namespace}.invalid"


def _done(request: Request, message: str) -> Response:
    return answer(Done(message=message, request_id=request_id_of(request.scope)))
