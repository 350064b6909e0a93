"""Building templates over the control plane (contract §2.4).

Answers hold exactly the fields of the contract: clients unpack them into dataclasses, and one more is a TypeError.
"""

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AliasChoices, ConfigDict, Field, StringConstraints, model_validator

from cove.models.base import Contract
from cove.models.environment import check_env_vars
from cove.models.isolation import Isolation
from cove.models.network import NetworkPolicy
from cove.models.sandboxes import ResourcesRequest

MAX_STEPS = 200
MAX_STEP_CHARACTERS = 64 * 1024
MAX_UPLOAD_BYTES = 1024 * 1024 * 1024
TEMPLATE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
FileHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Text = Annotated[str, StringConstraints(max_length=MAX_STEP_CHARACTERS)]


class StepType(StrEnum):
    """What a build can do, one step after the other."""

    COPY = "COPY"
    RUN = "RUN"
    ENV = "ENV"
    WORKDIR = "WORKDIR"
    USER = "USER"


class BuildStep(Contract):
    """One step, whatever form the client sends it in.

    Attributes:
        args: COPY: sources joined by commas, destination; RUN: shell text; ENV: name, value; WORKDIR: directory;
            USER: name.
        files_hash: of a COPY: names the uploaded archive.
    """

    model_config = ConfigDict(extra="ignore")

    type: StepType
    args: tuple[_Text, ...]
    files_hash: FileHash | None = Field(
        default=None, validation_alias=AliasChoices("filesHash", "files_hash"), serialization_alias="filesHash"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, value: Any) -> Any:
        return normalised_step(value)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        wanted = 2 if self.type in (StepType.COPY, StepType.ENV) else 1
        if len(self.args) != wanted:
            raise ValueError(f"a step of type {self.type} takes {wanted} arguments, not {len(self.args)}")
        if self.type is StepType.ENV:
            check_env_vars({self.args[0]: self.args[1]})
        if self.type is StepType.COPY and self.files_hash is None:
            raise ValueError("a COPY step needs filesHash, of an archive that was uploaded")
        return self


def normalised_step(value: Any) -> Any:
    """The form with `type` in upper case and `args`, made of each form that a client or a documentation page uses:
    Python's; JavaScript's `{type: "env", key, value}` and `{type: "workdir", path}`; the older pages' `apt`, `run`
    and `copy` (contract §2.4).
    """
    if not isinstance(value, dict):
        return value
    step: dict[str, Any] = {str(name): item for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    kind = str(step.get("type", "")).upper()
    if kind == "APT":
        packages = " ".join(str(name) for name in step.get("packages") or ())
        return {"type": "RUN", "args": (f"apt-get update && apt-get install -y {packages}",)}
    if "args" not in step:
        sources = step.get("src") or step.get("source") or ()
        joined = sources if isinstance(sources, str) else ",".join(str(one) for one in sources)
        forms: dict[str, tuple[Any, ...]] = {
            "ENV": (step.get("key"), step.get("value")),
            "WORKDIR": (step.get("path"),),
            "RUN": (step.get("command"),),
            "COPY": (joined, step.get("dest")),
            "USER": (step.get("user"),),
        }
        step["args"] = forms.get(kind, ())
    return {**step, "type": kind}


class ReadyCheck(Contract):
    """When the start command counts as up. Times in milliseconds."""

    model_config = ConfigDict(extra="ignore")

    type: Annotated[str, StringConstraints(pattern=r"^(port|url|file|process|command)$")]
    port: int | None = Field(default=None, ge=1, le=65535)
    url: _Text | None = None
    path: _Text | None = None
    process_name: _Text | None = Field(default=None, validation_alias=AliasChoices("processName", "name"))
    command: _Text | None = None
    timeout: int = Field(default=30_000, ge=100, le=600_000)
    interval: int = Field(default=2_000, ge=50, le=60_000)


class BuildTemplate(Contract):
    """Body of `POST /v1/templates/build`. `memory` in MiB, `diskGB` in GiB.

    Attributes:
        resources: limits of the template's sandboxes by their names, beside `cpu`, `memory` and `diskGB`, or instead.
        isolation: what its sandboxes must have at least.
        network: what its sandboxes may reach where their creates say nothing of it; absent: as those of the base. The
            steps of the build have no network.
        run_as_root: programs of its sandboxes run as root inside. The steps run as those of the base do.
    """

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, StringConstraints(pattern=TEMPLATE_NAME)] = Field(
        validation_alias=AliasChoices("name", "alias")
    )
    from_image: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    steps: tuple[BuildStep, ...] = Field(default=(), max_length=MAX_STEPS)
    start_command: _Text | None = Field(default=None, validation_alias=AliasChoices("startCmd", "start_command"))
    ready: ReadyCheck | None = Field(default=None, validation_alias=AliasChoices("readyCmd", "ready"))
    cpu: int = Field(default=2, ge=1, le=256)
    memory: int = Field(default=2048, ge=64, le=1024 * 1024)
    disk_gb: int = Field(default=10, ge=1, le=1024, validation_alias=AliasChoices("diskGB", "disk_gb"))
    resources: ResourcesRequest | None = None
    isolation: Isolation | None = None
    network: NetworkPolicy | None = None
    run_as_root: bool = Field(default=False, validation_alias=AliasChoices("run_as_root", "runAsRoot"))
    update: bool = False
    registry_credentials: dict[str, Any] | None = None


class UploadRequest(Contract):
    """Body of `POST /v1/templates/files/upload-link`."""

    model_config = ConfigDict(extra="ignore")

    files_hash: FileHash
    content_length: int = Field(ge=1, le=MAX_UPLOAD_BYTES)


class UploadLink(Contract):
    """Where to put an archive (tar.gz, with PUT and nothing but the URL), unless it is there already."""

    present: bool
    upload_url: str | None = None
    expires_at: str | None = None
    files_hash: str
    request_id: str | None = None


class BuildStatus(StrEnum):
    """How far a build is."""

    PENDING = "pending"
    BUILDING = "building"
    ACTIVE = "active"
    FAILED = "failed"


class BuildAccepted(Contract):
    """Answer to a build request. Template and build have one id: clients use the two interchangeably."""

    build_id: str
    template_id: str
    status: BuildStatus
    logs_url: str
    request_id: str | None = None


class BuildState(Contract):
    """Answer to `GET /v1/templates/build/{id}/status`; `progress` in percent."""

    build_id: str
    template_id: str
    status: BuildStatus
    progress: int
    started_at: str
    current_step: str | None = None
    completed_at: str | None = None
    error_message: str | None = None
    build_duration_ms: int | None = None
    request_id: str | None = None


class TemplateDeleted(Contract):
    """Answer to the deletion of a template."""

    id: str
    name: str
    deleted: bool = True
    status: str = "deleted"
    request_id: str | None = None


class BuildLogs(Contract):
    """Answer to `GET /v1/templates/build/{id}/logs`: what was said from `offset` (characters) on."""

    logs: str
    offset: int
    status: BuildStatus
    complete: bool
    request_id: str | None = None
