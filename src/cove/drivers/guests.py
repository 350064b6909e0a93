"""What both kinds of guest program are started with and told, and how what they report reads as an error."""

from pathlib import Path
from typing import Any, Final

from cove.host.templates.paths import AGENT_PATH, ROOT_ENVIRONMENT, ROOT_NODE_ENVIRONMENT
from cove.models.agent import AgentBoot
from cove.models.errors import CoveError, error
from cove.models.hosts import SandboxSpec
from cove.models.isolation import Isolation
from cove.models.templates import TemplateManifest


def launcher_environment() -> dict[str, str]:
    """Of the helper programs on the host: this very copy of the package, and nothing of the caller's."""
    package = str(Path(__file__).resolve().parents[2])
    return {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": package, "PYTHONSAFEPATH": "1"}


def guest_environment(template: TemplateManifest) -> dict[str, str]:
    """Of the program that imports a template's modules, without what a user's build set: programs of users get theirs
    from the agent. One thread for numeric libraries: a process with threads cannot be forked safely."""
    trusted = {name: value for name, value in template.environment.items() if name not in template.own_environment}
    single = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}
    private = {"PYTHONPATH": AGENT_PATH, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONSAFEPATH": "1"}
    return {**trusted, **single, **private}


def host_name(sandbox_id: str) -> str:
    """What a sandbox calls itself."""
    return f"sandbox-{sandbox_id[-8:]}"


def agent_boot(spec: SandboxSpec, template: TemplateManifest, isolation: Isolation) -> AgentBoot:
    """What a new sandbox's agent is told."""
    return AgentBoot(
        sandbox_id=spec.sandbox_id,
        template=template.name,
        isolation=isolation,
        env_vars=spec.env_vars,
        base_environment=_environment_inside(template),
        languages=template.languages,
        limits=spec.limits,
        start_command=template.start_command,
    )


def _environment_inside(template: TemplateManifest) -> dict[str, str]:
    """What a user's build has set goes before all else."""
    if not template.run_as_root:
        return template.environment
    node = ROOT_NODE_ENVIRONMENT if "NPM_CONFIG_PREFIX" in template.environment else {}
    return {**template.environment, **ROOT_ENVIRONMENT, **node, **template.own_environment}


def start_failure(message: dict[str, Any]) -> CoveError:
    """The typed error for an error message of a guest program; it is not trusted."""
    detail = message.get("error")
    fields: dict[str, Any] = detail if isinstance(detail, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    step, text = str(fields.get("step", "start"))[:200], str(fields.get("message", "failed"))[:500]
    number = fields.get("errno")
    remedy = _REMEDIES.get(number, "") if isinstance(number, int) and "namespaces" in step else ""
    return error("SANDBOX_START_FAILED", f"Could not {step}: {text}.", remedy=remedy, step=step)


_REMEDIES: Final = {
    1: "User namespaces are refused: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu 24.04 and later)"
    " or kernel.unprivileged_userns_clone=1 (Debian before 12).",
    28: "No more user namespaces: sysctl -w user.max_user_namespaces=65536.",
    11: "The host's process limit is reached: sysctl -w kernel.pid_max=4194304.",
}
