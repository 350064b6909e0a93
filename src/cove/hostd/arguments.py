"""What the host daemon takes from whoever calls it, who need not be trusted: nothing unknown, everything bounded, names
by their pattern, no path."""

from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from cove.hostd.changes import LONGEST_WAIT_SECONDS
from cove.models.environment import EnvVars, check_env_vars
from cove.models.hosts import SandboxSpec
from cove.models.identifiers import SANDBOX_ID
from cove.models.limits import Limits
from cove.models.network import MAX_RULES, EgressPolicy, Rule
from cove.models.secrets import MAX_SECRETS, PLACEHOLDER_PREFIX, EgressSecret, SecretHosts, SecretName, SecretPlace
from cove.models.templates import CapturedDirectory, TemplateDerivation, is_ownable

_STRICT: Final = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
_LATEST: Final = 1e11
_TEXT: Final = 64 * 1024
_DIRECTORIES: Final = 64
_ENVIRONMENTS: Final = 4
"""A derived template may have that many times the variables of one create: each step of a build may set some."""

SandboxId = Annotated[str, StringConstraints(pattern=SANDBOX_ID.pattern.replace(r"\Z", "$"), max_length=18)]
TemplateName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Deadline = Annotated[float, Field(ge=0, le=_LATEST)]


def _ownable(paths: tuple[str, ...]) -> tuple[str, ...]:
    for path in paths:
        if not is_ownable(path):
            raise ValueError(f"{path[:64]!r} cannot be given to a sandbox's user")
    return paths


Owned = Annotated[tuple[str, ...], Field(max_length=_DIRECTORIES), AfterValidator(_ownable)]


class StrictLimits(Limits):
    """Limits, and nothing that this version does not know."""

    model_config = _STRICT


class StrictPolicy(EgressPolicy):
    """A policy; what is open although it is not public is for the host's own operator to say."""

    allow: Annotated[tuple[Rule, ...], Field(max_length=2 * MAX_RULES)] = ()
    deny: Annotated[tuple[Rule, ...], Field(max_length=2 * MAX_RULES)] = ()
    internal: Annotated[tuple[Rule, ...], Field(max_length=0)] = ()


class StrictSecret(EgressSecret):
    """A secret whose every part is bounded."""

    model_config = _STRICT

    name: SecretName
    placeholder: str = Field(pattern=rf"^{PLACEHOLDER_PREFIX}[0-9a-f]{{32}}$", max_length=64)
    hosts: SecretHosts
    places: frozenset[SecretPlace] = Field(min_length=1)


def _together(secrets: tuple[StrictSecret, ...]) -> tuple[StrictSecret, ...]:
    """As the egress program takes them: all in one packet."""
    if len({secret.name for secret in secrets}) < len(secrets):
        raise ValueError("two secrets have the same name")
    if len({secret.placeholder for secret in secrets}) < len(secrets):
        raise ValueError("two secrets have the same placeholder")
    return secrets


Secrets = Annotated[tuple[StrictSecret, ...], Field(max_length=MAX_SECRETS), AfterValidator(_together)]


class StrictSpec(SandboxSpec):
    """A specification whose every part is bounded."""

    model_config = _STRICT

    sandbox_id: SandboxId
    template: TemplateName
    limits: StrictLimits = StrictLimits()  # pyright: ignore[reportIncompatibleVariableOverride]
    env_vars: EnvVars = {}
    deadline: Deadline | None = None
    owned_directories: Owned = ()
    network: StrictPolicy | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    secrets: Secrets = Field(default=(), repr=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="after")
    def _known_limits(self) -> Self:
        if unknown := self.required_limits - Limits.model_fields.keys():
            raise ValueError(f"no limits: {sorted(unknown)[:3]!r:.100}")
        return self


class StrictCapture(CapturedDirectory):
    """The archive's name is checked where it is opened."""

    model_config = _STRICT

    inside: str = Field(max_length=4096, pattern=r"^/[^\x00-\x1f]*$")
    archive: str = Field(max_length=64)

    @model_validator(mode="after")
    def _stays_inside(self) -> Self:
        if ".." in self.inside.split("/"):
            raise ValueError("a directory is named by its own path")
        return self


def _variables(variables: dict[str, str]) -> dict[str, str]:
    names = list(variables)
    size = -(-max(len(names), 1) // _ENVIRONMENTS)
    for start in range(0, len(names), size):
        check_env_vars({name: variables[name] for name in names[start : start + size]})
    return variables


class StrictDerivation(TemplateDerivation):
    """A derivation whose every part is bounded."""

    model_config = _STRICT

    name: TemplateName
    base: TemplateName
    display_name: str = Field(max_length=_TEXT)
    description: str = Field(max_length=_TEXT)
    environment: Annotated[dict[str, str], AfterValidator(_variables)] = {}
    directories: tuple[StrictCapture, ...] = Field(default=(), max_length=_DIRECTORIES)  # pyright: ignore[reportIncompatibleVariableOverride]
    owned_directories: Owned = ()
    start_command: str = Field(default="", max_length=_TEXT)
    limits: StrictLimits = StrictLimits()  # pyright: ignore[reportIncompatibleVariableOverride]


class NoArguments(BaseModel):
    """For calls without any."""

    model_config = _STRICT


class CreateArguments(BaseModel):
    """For `create`."""

    model_config = _STRICT

    spec: StrictSpec


class SandboxArguments(BaseModel):
    """For calls on one sandbox."""

    model_config = _STRICT

    sandbox_id: SandboxId


class DeadlineArguments(BaseModel):
    """For `claim` and `set_deadline`; unix seconds."""

    model_config = _STRICT

    sandbox_id: SandboxId
    deadline: Deadline | None


class NetworkArguments(BaseModel):
    """For `set_network`."""

    model_config = _STRICT

    sandbox_id: SandboxId
    policy: StrictPolicy | None


class SecretsArguments(BaseModel):
    """For `set_secrets`."""

    model_config = _STRICT

    sandbox_id: SandboxId
    changed: Secrets = Field(repr=False)
    removed: tuple[SecretName, ...] = Field(max_length=MAX_SECRETS)


class NetworkReportArguments(BaseModel):
    """For `network`."""

    model_config = _STRICT

    sandbox_id: SandboxId
    after: int = Field(ge=0)


class StopArguments(BaseModel):
    """For `stop`."""

    model_config = _STRICT

    sandbox_id: SandboxId
    env_vars: EnvVars


class ChangesArguments(BaseModel):
    """For `changes`."""

    model_config = _STRICT

    cursor: str = Field(max_length=100)
    seconds: float = Field(ge=0, le=LONGEST_WAIT_SECONDS)


class DeriveArguments(BaseModel):
    """For `derive_template`."""

    model_config = _STRICT

    derivation: StrictDerivation


class TemplateArguments(BaseModel):
    """For calls on one template."""

    model_config = _STRICT

    name: TemplateName
