"""From a request to a plan: every refusal happens here, before anything is touched."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cove.core.catalog import CatalogEntry
from cove.core.quotas import fitted
from cove.models.errors import error
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.quotas import UNLIMITED, Quota
from cove.models.sandboxes import CreateSandbox
from cove.models.stored import StoredTemplate

_STRENGTH = {isolation: rank for rank, isolation in enumerate(Isolation)}
_LIMIT_NAMES = ("vcpu", "memory_mb", "disk_mb")


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationPolicy:
    """What the operator decided about new sandboxes.

    Attributes:
        isolation: the driver to use; None leaves it to the host (the strongest that works). A request may ask for
            another one, but not for a weaker one than this.
        default_timeout_seconds: for requests that name none; 0 means never.
        max_sandboxes: of all namespaces together.
        max_limits: the most that a request may ask for.
        create_seconds: a start that takes longer counts as failed.
    """

    isolation: Isolation | None = None
    default_timeout_seconds: int = 3600
    max_sandboxes: int = 1000
    limits: Limits = field(default_factory=Limits)
    max_limits: Limits = field(default_factory=lambda: Limits(vcpu=16, memory_mb=16 * 1024, disk_mb=64 * 1024))
    create_seconds: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationPlan:
    """One sandbox to be made.

    Attributes:
        poolable: whether a member of the warm pool would be the same thing.
        required_limits: those that the request asked for or that a quota lowered, and that the host must be able to
            enforce.
        timeout_seconds, deadline: None for a sandbox without end.
    """

    template: StoredTemplate
    isolation: Isolation | None
    limits: Limits
    created_at: float
    timeout_seconds: int | None
    deadline: float | None
    region: str | None
    name: str | None
    poolable: bool
    required_limits: frozenset[str] = frozenset()
    env_vars: Mapping[str, str] = field(default_factory=dict[str, str])


def reference_of(request: CreateSandbox) -> str:
    """The template that the request names.

    Raises:
        CoveError: MISSING_PARAMETER when it names none.
    """
    reference = request.template_id or request.template_name
    if not reference:
        raise error(
            "MISSING_PARAMETER",
            "Neither template_id nor template_name is given.",
            remedy="Name a template, for example template_name: code-interpreter.",
            field="template_name",
        )
    return str(reference)


def plan(
    request: CreateSandbox, entry: CatalogEntry, policy: CreationPolicy, *, now: float, ceilings: Quota = UNLIMITED
) -> CreationPlan:
    """What the request comes to under the policy and the ceilings of whoever asks.

    Raises:
        CoveError: TEMPLATE_NOT_BUILT, FORBIDDEN (weaker isolation), RESOURCE_LIMIT_EXCEEDED.
    """
    if not entry.built:
        raise error("TEMPLATE_NOT_BUILT", f"Template {entry.template.name!r} is not built on this host.")
    asked_for = frozenset(request.resources.model_dump(exclude_none=True)) if request.resources else frozenset[str]()
    defaults = _defaults(entry.template, policy)
    limits = _limits(request, policy, defaults)
    if not ceilings.is_open:
        limits = fitted(limits, asked_for, ceilings)
    isolation = _isolation(request, policy)
    lowered = {name for name in _LIMIT_NAMES if getattr(limits, name) < getattr(defaults, name)}
    required = asked_for | lowered
    asked = policy.default_timeout_seconds if request.timeout_seconds is None else request.timeout_seconds
    return CreationPlan(
        template=entry.template,
        isolation=isolation,
        limits=limits,
        created_at=now,
        timeout_seconds=asked or None,
        deadline=now + asked if asked else None,
        region=request.region,
        name=request.name,
        poolable=not required and isolation == policy.isolation and defaults == policy.limits,
        required_limits=required,
        env_vars=request.env_vars or {},
    )


def _isolation(request: CreateSandbox, policy: CreationPolicy) -> Isolation | None:
    asked, least = request.isolation, policy.isolation
    if asked is None:
        return least
    if least is not None and _STRENGTH[asked] < _STRENGTH[least]:
        raise error(
            "FORBIDDEN",
            f"This server isolates with {least} or stronger; {asked} is weaker.",
            remedy=f"Leave isolation out, or ask for {least}.",
            field="isolation",
        )
    return asked


def _defaults(template: StoredTemplate, policy: CreationPolicy) -> Limits:
    """What its builder asked for, as far as the server allows it today."""
    if template.build is None:
        return policy.limits
    wanted = {name: min(value, getattr(policy.max_limits, name)) for name, value in template.build.limits.items()}
    return policy.limits.model_copy(update=wanted)


def _limits(request: CreateSandbox, policy: CreationPolicy, defaults: Limits) -> Limits:
    if request.resources is None:
        return defaults
    asked = request.resources.model_dump(exclude_none=True)
    for name in _LIMIT_NAMES:
        most = getattr(policy.max_limits, name)
        if asked.get(name, 0) > most:
            raise error(
                "RESOURCE_LIMIT_EXCEEDED",
                f"resources.{name} is {asked[name]}, above this server's limit of {most}.",
                remedy=f"Ask for at most {most}.",
                field=f"resources.{name}",
                limit=most,
                current=asked[name],
                available=most,
            )
    return defaults.model_copy(update=asked) if asked else defaults
