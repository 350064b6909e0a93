"""Templates as the control plane speaks of them, and as the host builds them."""

import re
from datetime import datetime

from cove.models.base import Contract
from cove.models.isolation import Isolation
from cove.models.limits import Limits
from cove.models.network import NetworkPolicy


class TemplateResources(Contract):
    """Default or bounding resources. Disk is in GiB here (in sandboxes it is MiB)."""

    vcpu: int | None = None
    memory_mb: int | None = None
    disk_gb: int | None = None


class TemplateInfo(Contract):
    """One template (contract: Template object). `features` and `tags` are never null.

    Attributes:
        features: languages that `/execute` runs in it.
        network: what its sandboxes may reach where their creates say nothing of it; None leaves it to the server.
        packages: name -> version of what is installed; only where one template was asked for.
    """

    object: str = "template"
    id: str
    name: str
    display_name: str
    description: str | None = None
    category: str | None = None
    language: str | None = None
    features: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    is_active: bool = True
    is_public: bool = True
    status: str = "active"
    organization_id: str | None = None
    build_id: str | None = None
    default_resources: TemplateResources | None = None
    network: NetworkPolicy | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    packages: dict[str, str] | None = None
    request_id: str | None = None


class TemplatePage(Contract):
    """All templates that are visible."""

    object: str = "list"
    data: tuple[TemplateInfo, ...]
    has_more: bool = False
    url: str = "/v1/templates"
    request_id: str | None = None


class TemplateManifest(Contract):
    """A template that is built and ready on a host.

    Attributes:
        name: for example `code-interpreter`.
        category, language, features, tags: as in `TemplateInfo`.
        digest: content address of the whole (hash of the layer digests and of what follows).
        layers: directories that make up the read-only root filesystem, the topmost first (overlayfs order).
        python: the interpreter inside, an absolute path in the root filesystem.
        python_path: where the agent and its packages are inside. The warm process puts these first on `sys.path`;
            they are in no environment variable, so that programs of users do not see them.
        preload: modules that the warm process imports before it forks.
        environment: variables of every process inside.
        languages: what `/execute` can run.
        packages: name -> version of what is installed, for people.
        size_bytes: disk use of all layers.
        notes: what was left out, and why.
        built_at: when.
        base: name of the template that this one was derived from; empty for one with a recipe.
        own_layers: the topmost of `layers`, which a user's build made. The warm process, which is outside of every
            sandbox, never sees them.
        own_environment: what a user's build added to `environment`; the warm process never sees that either.
        owned_directories: directories that belong to the sandbox's user, beside the usual ones.
        start_command: shell text that runs in the background from the start of each sandbox.
        limits: of sandboxes that ask for none.
        resources: names and values of the limits that its recipe sets; the others are the server's.
        isolation: what its sandboxes must have at least; None leaves it to the server.
        network: as in `TemplateInfo`.
        run_as_root: programs run as root inside, who owns all files there; on the host it is nobody.
    """

    name: str
    display_name: str
    description: str
    category: str = "development"
    language: str = "python"
    features: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    digest: str
    layers: tuple[str, ...]
    python: str
    python_path: tuple[str, ...] = ()
    preload: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    languages: tuple[str, ...] = ("python", "bash")
    packages: dict[str, str] = {}
    size_bytes: int = 0
    notes: tuple[str, ...] = ()
    built_at: datetime
    base: str = ""
    own_layers: tuple[str, ...] = ()
    own_environment: dict[str, str] = {}
    owned_directories: tuple[str, ...] = ()
    start_command: str = ""
    limits: Limits | None = None
    resources: dict[str, int] = {}
    isolation: Isolation | None = None
    network: NetworkPolicy | None = None
    run_as_root: bool = False


class CapturedDirectory(Contract):
    """One directory of a sandbox, as a tar file on the host.

    Attributes:
        inside: absolute path in the sandbox.
        archive: the tar file in the host's directory for builds, `DIRECTORY/FILE`. Neither is trusted, nor its content.
    """

    inside: str
    archive: str


class TemplateDerivation(Contract):
    """What a host is asked to make of a template that it has and of what a build has left in a sandbox.

    Attributes:
        name: under which the host keeps the new template; `derived_name` makes them.
        base: name of the template below.
        environment: added to the base's.
        directories: become one layer.
        owned_directories, start_command, limits, isolation, network: as in `TemplateManifest`.
        run_as_root: the same; also when the base's is so.
    """

    name: str
    base: str
    display_name: str
    description: str
    environment: dict[str, str] = {}
    directories: tuple[CapturedDirectory, ...] = ()
    owned_directories: tuple[str, ...] = ()
    start_command: str = ""
    limits: Limits = Limits()
    isolation: Isolation | None = None
    network: NetworkPolicy | None = None
    run_as_root: bool = False


_TAKEN = frozenset(
    {
        *("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "media", "mnt", "proc", "root"),
        *("run", "sbin", "sys", "tmp", "usr", "var", "workspace"),
    }
)


def is_ownable(path: str) -> bool:
    """Whether a sandbox's user may be given this directory: one right below the root that the system has no use for."""
    return re.fullmatch(r"/[A-Za-z0-9][A-Za-z0-9._-]{0,63}", path) is not None and path[1:] not in _TAKEN


def derived_name(template_id: int) -> str:
    """The name under which hosts keep the template with this id: names that users choose may be the same twice."""
    return f"t{template_id}"


class BuildProgress(Contract):
    """One step of a template build, for a progress bar.

    Attributes:
        step: what is being done, a short phrase for people.
        fraction: 0.0 to 1.0 of the whole build.
    """

    step: str
    fraction: float
