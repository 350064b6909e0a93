"""The account of whoever holds an API key (contract 2.5): the namespace is the organization, its keys are the members.

Values that clients put into tables are strings. Nothing here is ever secret but `CreatedApiKey.full_key`, which is
shown once.
"""

from typing import Literal

from pydantic import Field

from cove.models.base import Contract
from cove.models.scopes import ALL_SCOPES, Scope

PLAN = "self-hosted"
KeyLifetime = Literal["1month", "3months", "6months", "1year", "never"]


class Login(Contract):
    """Body of `POST /auth/workos-callback`: what a person pasted, which is an API key of this server."""

    code: str = Field(min_length=1, max_length=512)


class Refresh(Contract):
    """Body of `POST /auth/refresh`."""

    refresh_token: str = Field(min_length=1, max_length=1024)


class SessionAnswer(Contract):
    """A session. It opens `/auth/...` only, and ends with the key that opened it. `expires_at` is in unix seconds."""

    access_token: str
    refresh_token: str
    expires_at: int
    request_id: str | None = None


class CreateApiKey(Contract):
    """Body of `POST /auth/api-keys`. The key is always one of the caller's own namespace.

    Attributes:
        scopes: what it may do; absent: what the caller may.
    """

    name: str = Field(min_length=1, max_length=200)
    expires_in: KeyLifetime = "never"
    scopes: tuple[Scope, ...] | None = Field(default=None, min_length=1, max_length=len(ALL_SCOPES))


class ApiKeyInfo(Contract):
    """A key without its secret."""

    id: str
    key_id: str
    name: str
    prefix: str
    masked_key: str
    scopes: tuple[Scope, ...]
    status: Literal["active", "expired", "revoked"]
    created_at: str
    expires_at: str | None = None
    last_used_at: str | None = None


class ApiKeyPage(Contract):
    """Answer to `GET /auth/api-keys`."""

    success: bool = True
    api_keys: tuple[ApiKeyInfo, ...]
    count: int
    request_id: str | None = None


class ApiKeyAnswer(Contract):
    """One key."""

    success: bool = True
    message: str = "ok"
    api_key: ApiKeyInfo
    request_id: str | None = None


class CreatedApiKey(ApiKeyAnswer):
    """A key that was just made; `full_key` is the only copy."""

    full_key: str


class Profile(Contract):
    """Who the caller is: a key. It has no mailbox, so its address is one that exists nowhere (RFC 2606)."""

    user_id: str
    email: str
    first_name: str
    last_name: str
    role: Literal["admin", "member"]
    organization_id: int
    request_id: str | None = None


class UpdateProfile(Contract):
    """Body of `PUT /auth/profile`: the two parts of the key's name."""

    first_name: str | None = Field(default=None, max_length=100)
    last_name: str | None = Field(default=None, max_length=100)


class Done(Contract):
    """Answer of calls that have nothing else to say. Clients show `message` when `success` is false."""

    success: bool = True
    message: str = "ok"
    code: str | None = None
    request_id: str | None = None


class Organization(Contract):
    """The caller's namespace."""

    success: bool = True
    id: int
    name: str
    slug: str
    plan_id: str = PLAN
    created_at: str
    request_id: str | None = None


class RenameOrganization(Contract):
    """Body of `PUT /auth/organization`."""

    name: str = Field(min_length=1, max_length=200)


class SwitchOrganization(Contract):
    """Body of `POST /auth/organization/switch`."""

    organization_id: int = Field(ge=0, le=2**53)


class OrganizationEntry(Contract):
    """One organization of the list, which has one: a key belongs to one namespace."""

    id: int
    name: str
    role: str


class OrganizationPage(Contract):
    """Answer to `GET /auth/user/organizations`."""

    data: tuple[OrganizationEntry, ...]
    request_id: str | None = None


class Member(Contract):
    """One key in force, as a member."""

    id: str
    email: str
    first_name: str
    last_name: str
    role: str = "admin"
    status: str = "active"


class MemberPage(Contract):
    """Answer to `GET /auth/members`."""

    data: tuple[Member, ...]
    request_id: str | None = None


class Invitation(Contract):
    """Body of `POST /auth/members/invite`."""

    email: str = Field(min_length=1, max_length=320)


class Plan(Contract):
    """What is sold elsewhere: here there is one plan."""

    id: str = PLAN
    name: str = PLAN
    description: str = "Your own server: no charge; its operator sets the limits."
    is_current: bool = True
    max_concurrent_sandboxes: int = 0
    max_total_vcpu: int = 0
    max_total_memory_mb: int = 0
    upgrade_requirement: str = "-"


class PlanPage(Contract):
    """Answer to `GET /auth/plans`."""

    plans: tuple[Plan, ...]
    total_spent: int = 0
    request_id: str | None = None


class UsageLimits(Contract):
    """The caller's limits. Where the operator set no total, it is what the most sandboxes could use at most."""

    max_concurrent_sandboxes: int
    max_total_vcpu: int
    max_total_memory_mb: int
    max_total_disk_gb: float
    max_vcpu_per_sandbox: int
    max_memory_mb_per_sandbox: int
    max_disk_gb_per_sandbox: float


class CurrentUsage(Contract):
    """What the namespace's sandboxes may use now: the sum of their limits."""

    active_sandboxes: int
    total_vcpu: int
    total_memory_mb: int
    total_disk_gb: float


class PlanName(Contract):
    """The plan, named."""

    id: str = PLAN
    name: str = PLAN


class UsageAnswer(Contract):
    """Answer to `GET /auth/usage`."""

    plan: PlanName = PlanName()
    limits: UsageLimits
    current_usage: CurrentUsage
    request_id: str | None = None


class UsageDay(Contract):
    """One day (UTC) of a history; which figure it carries depends on what was asked for.

    Attributes:
        active_vms: sandboxes that existed at some time of the day.
        cost_usd: always 0.
        total_usage: limits times hours: vCPU hours, or GB hours of memory or disk.
    """

    date: str
    active_vms: int | None = None
    cost_usd: float | None = None
    total_usage: float | None = None


class UsageHistory(Contract):
    """Answer to `GET /auth/usage/history/...`, oldest day first."""

    data: tuple[UsageDay, ...]
    request_id: str | None = None
