"""The configuration of a sandbox as microsandbox's clients send it."""

import math
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from cove.models.environment import check_env_vars
from cove.models.sandboxes import ResourcesRequest

MAX_ENTRIES = 1000
_PORT = re.compile(r"(?:([0-9]{1,5}):)?([0-9]{1,5})(?:/tcp)?")
_MAX_PORT = 65535
_MAX_CPUS = 256
_LIMITS_OF_CLIENT = (512, 1)


def none_to_empty(value: Any) -> Any:
    """Clients send null for a list that they do not set."""
    return () if value is None else value


Texts = Annotated[tuple[str, ...], BeforeValidator(none_to_empty), Field(max_length=MAX_ENTRIES)]


def _whole_processors(value: Any) -> Any:
    """Clients that compute with fractions of a processor get the nearest whole number, one at least."""
    if isinstance(value, bool):
        raise ValueError("it must be a number")  # noqa: TRY004 - pydantic tells of nothing else
    if isinstance(value, float) and math.isfinite(value) and 0 <= value <= _MAX_CPUS:
        return max(1, round(value))
    return 1 if isinstance(value, int) and value == 0 else value


class SandboxConfig(BaseModel):
    """Of `sandbox.start`. Everything may be left out or null; fields beyond these are ignored.

    Attributes:
        image: names a template (`images.template_for`).
        memory: MiB.
        cpus: processors that it may keep busy.
        volumes: `host:guest`, or a path of both. Directories; they are copied, not mounted.
        ports: `host:guest`, or a port of both. No port of the host is opened; each has a preview URL.
        envs: `NAME=value`.
        workdir: where code and commands run.
        shell, scripts, depends_on, exec: taken from clients that send them, without effect.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    image: str | None = Field(default=None, max_length=300)
    memory: int | None = Field(default=None, ge=64, le=1024 * 1024)
    cpus: Annotated[int | None, BeforeValidator(_whole_processors)] = Field(default=None, ge=1, le=_MAX_CPUS)
    volumes: Texts = ()
    ports: Texts = ()
    envs: Texts = ()
    workdir: str | None = Field(default=None, max_length=4096)
    shell: Any = None
    scripts: Any = None
    depends_on: Any = None
    exec: Any = None

    @field_validator("envs")
    @classmethod
    def _variables(cls, envs: tuple[str, ...]) -> tuple[str, ...]:
        for number, text in enumerate(envs, start=1):
            # The entry itself may be a secret: it is not repeated.
            if text.find("=") < 1:
                raise ValueError(f"entry {number} is not of the form NAME=value")
        check_env_vars(_pairs(envs))
        return envs

    @field_validator("ports")
    @classmethod
    def _ports_exist(cls, ports: tuple[str, ...]) -> tuple[str, ...]:
        for text in ports:
            found = _PORT.fullmatch(text)
            if found is None or not all(1 <= int(port) <= _MAX_PORT for port in found.groups() if port):
                raise ValueError(f"{text[:40]!r} is neither a port (1 to {_MAX_PORT}) nor HOST:SANDBOX")
        return ports

    @field_validator("workdir")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        if path and (not path.startswith("/") or "\0" in path):
            raise ValueError("it is not an absolute path inside the sandbox")
        return path or None

    @field_validator("volumes")
    @classmethod
    def _pairs_of_paths(cls, volumes: tuple[str, ...]) -> tuple[str, ...]:
        for text in volumes:
            host, _, guest = text.partition(":")
            if not host.startswith("/") or not (guest or host).startswith("/") or "\0" in text:
                raise ValueError(f"{text[:200]!r} is neither an absolute path nor two, HOST:SANDBOX")
        return volumes

    @property
    def directories(self) -> tuple[tuple[str, str], ...]:
        """The volumes: directory of the server's machine, directory of the sandbox."""
        return tuple((host, guest or host) for host, _, guest in (text.partition(":") for text in self.volumes))

    @property
    def variables(self) -> dict[str, str]:
        """The environment."""
        return _pairs(self.envs)

    @property
    def guest_ports(self) -> tuple[int, ...]:
        """The ports that programs inside are to listen on."""
        found = (_PORT.fullmatch(text) for text in self.ports)
        return tuple(dict.fromkeys(int(match[2]) for match in found if match))

    @property
    def resources(self) -> ResourcesRequest | None:
        """The limits that it asks for; None when it asks for none."""
        if self.memory is None and self.cpus is None:
            return None
        return ResourcesRequest(vcpu=self.cpus, memory_mb=self.memory)

    @property
    def limits_are_the_clients_own(self) -> bool:
        """Whether they are those that the Python client sends when its user names none: nobody insists on them."""
        return (self.memory, self.cpus) == _LIMITS_OF_CLIENT

    @property
    def without_effect(self) -> tuple[str, ...]:
        """Names of the fields that are set and do nothing."""
        names = ("shell", "scripts", "depends_on", "exec")
        return tuple(name for name in names if getattr(self, name))


def _pairs(envs: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in envs)}
