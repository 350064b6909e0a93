"""From a request to a plan: every refusal happens here, before anything is touched."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cove.core.catalog import CatalogEntry
from cove.core.quotas import above_maximum, fitted
from cove.core.vault import ResolvedSecret
from cove.models.egress_rules import EgressRule
from cove.models.environment import check_env_vars
from cove.models.errors import CoveError, error
from cove.models.isolation import Isolation, level_for, refuse_weaker, strongest
from cove.models.limits import Limits
from cove.models.network import NO_NETWORK, PUBLIC_INTERNET, EgressPolicy, NetworkPolicy
from cove.models.previews import PreviewAccess
from cove.models.quotas import UNLIMITED, Quota
from cove.models.sandboxes import CreateSandbox
from cove.models.secrets import EgressSecret, rule_of
from cove.models.stored import StoredTemplate
from cove.models.trust import TRUST_VARIABLES

_LIMIT_NAMES = tuple(Limits.model_fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationPolicy:
    """What the operator decided about new sandboxes.

    Attributes:
        isolation: the driver to use; None leaves it to the host (the strongest that works). A request may ask for
            another one, but not for a weaker one than this.
        default_timeout_seconds: for requests that name none; 0 means never.
        max_sandboxes: of all namespaces together.
        max_limits: the most that a request or a template may ask for; None is no maximum.
        must_hold: names of limits without which no sandbox is started, also where they are defaults.
        create_seconds: a start that takes longer counts as failed.
        network: for requests that say nothing of a network, of templates that do not either; None is none.
        registries: answers the rules that the preset `package-registries` stands for.
        max_network: rules that cover all that any sandbox may be allowed; none is no maximum.
    """

    isolation: Isolation | None = None
    default_timeout_seconds: int = 3600
    max_sandboxes: int = 1000
    limits: Limits = field(default_factory=Limits)
    max_limits: Limits = field(default_factory=lambda: Limits(vcpu=16, memory_mb=16 * 1024, disk_mb=64 * 1024))
    must_hold: frozenset[str] = frozenset()
    create_seconds: float = 60.0
    network: NetworkPolicy | None = None
    registries: Callable[[], tuple[str, ...]] = tuple
    max_network: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationPlan:
    """One sandbox to be made.

    Attributes:
        poolable: whether a member of the warm pool would be the same thing.
        required_limits: those that the request asked for, that a quota lowered or that the operator insists on: the
            host must be able to enforce them.
        timeout_seconds, deadline: None for a sandbox without end.
        network: None for a sandbox without one.
        network_required: whether it is refused where there are no networks.
        preview_access: None leaves it to the server's setting.
        secrets: their placeholders are in `env_vars`.
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
    network: EgressPolicy | None = None
    network_required: bool = False
    preview_access: PreviewAccess | None = None
    secrets: tuple[ResolvedSecret, ...] = ()

    @property
    def held_secrets(self) -> tuple[EgressSecret, ...]:
        """What the host gets of them."""
        return tuple(secret.held for secret in self.secrets)


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
    request: CreateSandbox,
    entry: CatalogEntry,
    policy: CreationPolicy,
    *,
    now: float,
    ceilings: Quota = UNLIMITED,
    secrets: tuple[ResolvedSecret, ...] = (),
) -> CreationPlan:
    """What the request comes to under the policy and the ceilings of whoever asks.

    Raises:
        CoveError: TEMPLATE_NOT_BUILT, FORBIDDEN (weaker isolation, wider network), RESOURCE_LIMIT_EXCEEDED,
            INVALID_REQUEST (two networks, a secret for a host that the network does not allow).
    """
    if not entry.built:
        raise error("TEMPLATE_NOT_BUILT", f"Template {entry.template.name!r} is not built on this host.")
    asked_for = frozenset(request.resources.model_dump(exclude_none=True)) if request.resources else frozenset[str]()
    defaults = _defaults(entry, policy)
    limits = _limits(request, policy, defaults)
    if not ceilings.is_open:
        limits = fitted(limits, asked_for, ceilings)
    isolation = _isolation(request, entry, policy)
    lowered = {name for name in _LIMIT_NAMES if getattr(limits, name) != getattr(defaults, name)}
    own = asked_for | lowered
    network = _network(request, entry, policy)
    env_vars = request.env_vars or {}
    if secrets:
        check_hosts([secret.held for secret in secrets], network)
        env_vars = with_placeholders(env_vars, [secret.held for secret in secrets])
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
        poolable=not own and isolation == policy.isolation and defaults == policy.limits,
        required_limits=own | policy.must_hold,
        env_vars=env_vars,
        network=network,
        network_required=request.network is not None or bool(secrets),
        preview_access=request.preview_access,
        secrets=secrets,
    )


def check_hosts(secrets: Sequence[EgressSecret], network: EgressPolicy | None) -> None:
    """A secret opens no network: each of its hosts has to be allowed.

    Raises:
        CoveError: INVALID_REQUEST.
    """
    allowed = [] if network is None else [EgressRule.parse(rule) for rule in network.allow]
    denied = [] if network is None else [EgressRule.parse(rule) for rule in network.deny]
    for secret in secrets:
        for host in secret.hosts:
            wanted = rule_of(host)
            if any(rule.covers(wanted) for rule in denied) or not any(rule.covers(wanted) for rule in allowed):
                raise _out_of_reach(secret.name, host)


def _out_of_reach(name: str, host: str) -> CoveError:
    return error(
        "INVALID_REQUEST",
        f"The secret {name} is for {host}, which the sandbox's network does not allow.",
        remedy=f'Allow it: network: {{allow: ["{host}"]}}.',
        field=f"secrets.{name}.hosts",
    )


def with_placeholders(env_vars: Mapping[str, str], secrets: Sequence[EgressSecret]) -> dict[str, str]:
    """The environment of a sandbox with secrets.

    Raises:
        CoveError: INVALID_REQUEST: a name is in both, or it is too much.
    """
    twice = [secret.name for secret in secrets if secret.name in env_vars]
    if twice:
        raise error(
            "INVALID_REQUEST",
            f"{twice[0]} is in env_vars and in secrets.",
            remedy="Leave it out of env_vars: a secret's variable holds its placeholder.",
            field=f"secrets.{twice[0]}",
        )
    try:
        placeholders = {secret.name: secret.placeholder for secret in secrets}
        return check_env_vars({**TRUST_VARIABLES, **env_vars, **placeholders})
    except ValueError as problem:
        raise error("INVALID_REQUEST", f"With the secrets, {problem}.", field="env_vars") from None


def _network(request: CreateSandbox, entry: CatalogEntry, policy: CreationPolicy) -> EgressPolicy | None:
    wanted = request.network
    if wanted is not None and request.internet_access is not None:
        raise error(
            "INVALID_REQUEST",
            "internet_access and network say the same in two ways.",
            remedy="Give one of them: network: {preset: public} is the internet.",
            field="network",
        )
    if wanted is None:
        asked = request.internet_access
        default = policy.network if entry.network is None else entry.network
        wanted = default if asked is None else PUBLIC_INTERNET if asked else NO_NETWORK
    return None if wanted is None else network_in_force(wanted, policy)


def network_in_force(wanted: NetworkPolicy, policy: CreationPolicy) -> EgressPolicy | None:
    """What a policy comes to on this server; None for one that allows nothing.

    Raises:
        CoveError: FORBIDDEN: it is wider than the server's maximum.
    """
    found = wanted.in_force(registries=policy.registries)
    if policy.max_network:
        _check_width(found, [EgressRule.parse(rule) for rule in policy.max_network])
    return None if found.is_closed else found


def _check_width(wanted: EgressPolicy, most: Sequence[EgressRule]) -> None:
    for text in wanted.allow:
        rule = EgressRule.parse(text)
        if not any(one.covers(rule) for one in most):
            raise error(
                "FORBIDDEN",
                f"The network would allow {text}, which is more than sandboxes of this server may be allowed.",
                remedy=f"Allow no more than: {', '.join(map(str, most[:20]))}.",
                field="network",
                rule=text,
            )


def _isolation(request: CreateSandbox, entry: CatalogEntry, policy: CreationPolicy) -> Isolation | None:
    """The strongest of what the server and the template insist on, or what is asked for if it is no weaker."""
    asked = request.isolation
    if asked is None:
        return strongest(policy.isolation, entry.isolation)
    remedy = f"Leave isolation out, or ask for {strongest(policy.isolation, entry.isolation)}."
    refuse_weaker(asked, policy.isolation, who="This server isolates", remedy=remedy)
    return level_for(entry.template.name, entry.isolation, asked=asked)


def _defaults(entry: CatalogEntry, policy: CreationPolicy) -> Limits:
    """What the template's builder asked for, as far as the server allows it today."""
    if not entry.resources:
        return policy.limits
    wanted = {name: _at_most(value, getattr(policy.max_limits, name)) for name, value in entry.resources.items()}
    return policy.limits.model_copy(update=wanted)


def _at_most(value: int, most: int | None) -> int:
    return value if most is None else min(value, most)


def _limits(request: CreateSandbox, policy: CreationPolicy, defaults: Limits) -> Limits:
    asked = request.resources.model_dump(exclude_none=True) if request.resources else {}
    check_maxima(asked, policy)
    return defaults.model_copy(update=asked) if asked else defaults


def check_maxima(asked: Mapping[str, int], policy: CreationPolicy) -> None:
    """Refuse what is above the server's maxima.

    Raises:
        CoveError: RESOURCE_LIMIT_EXCEEDED, naming the field, what was asked for and what may be.
    """
    for name, value in asked.items():
        most: int | None = getattr(policy.max_limits, name)
        if most is not None and value > most:
            raise above_maximum(name, value, most, f"this server's limit of {most}")
