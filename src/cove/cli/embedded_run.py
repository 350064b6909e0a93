"""What `cove run` does: a host inside this process, one sandbox, one program, its output as it comes."""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

import pydantic

from cove.host.templates.store import TemplateStore
from cove.hostd.assembly import embedded_host, template_store
from cove.models.errors import error
from cove.models.execution import LANGUAGE_ALIASES, ExecuteRequest
from cove.models.hosts import SandboxRecord, SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.isolation import Isolation, level_for
from cove.models.limits import Limits
from cove.models.templates import TemplateManifest

if TYPE_CHECKING:
    from cove.models.network import EgressPolicy, NetworkPolicy
    from cove.models.sandboxes import ResourcesRequest
    from cove.models.secrets import EgressSecret, SandboxSecret
    from cove.server.settings import Settings

_MAX_LINE: Final = 64 * 1024 * 1024
_EXTRA_SECONDS: Final = 30.0
_LIFETIME_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Program:
    """What shall run, checked."""

    request: ExecuteRequest
    template: str
    isolation: str
    limits: dict[str, int] = field(default_factory=dict[str, int])
    network: "NetworkPolicy | None" = None
    secrets: "Mapping[str, SandboxSecret]" = field(default_factory=dict[str, "SandboxSecret"])

    @classmethod
    def checked(
        cls,
        *,
        code: str,
        language: str,
        timeout: float,
        env: dict[str, str],
        template: str,
        isolation: str,
        resources: "ResourcesRequest | None" = None,
        network: "NetworkPolicy | None" = None,
        secrets: "Mapping[str, SandboxSecret] | None" = None,
    ) -> Self:
        """
        Raises:
            CoveError: INVALID_REQUEST, UNSUPPORTED_LANGUAGE.
        """
        if language.lower() not in LANGUAGE_ALIASES:
            raise error("UNSUPPORTED_LANGUAGE", f"There is no language {language!r}.")
        try:
            request = ExecuteRequest(code=code, language=language, timeout=timeout, env=env)
        except pydantic.ValidationError as problem:
            first = problem.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise error("INVALID_REQUEST", f"{name}: {first['msg'].removeprefix('Value error, ')}.") from None
        limits = resources.model_dump(exclude_none=True) if resources else {}
        return cls(request, template, isolation, limits, network, secrets or {})

    def spec(self, template: TemplateManifest, settings: "Settings | None" = None) -> SandboxSpec:
        """The sandbox to run it in.

        Args:
            settings: needed for a network.

        Raises:
            CoveError: FORBIDDEN for a weaker isolation than the template's; INVALID_REQUEST for secrets that cannot be.
        """
        network = self._network(settings)
        secrets = self._held_secrets(network)
        defaults = template.limits or Limits().model_copy(update=template.resources)
        return SandboxSpec(
            sandbox_id=new_sandbox_id(),
            template=self.template,
            deadline=time.time() + self.request.timeout + _LIFETIME_SECONDS,
            limits=defaults.model_copy(update=self.limits),
            required_limits=frozenset(self.limits),
            network=network,
            network_required=self.network is not None,
            isolation=level_for(template.name, template.isolation, asked=self._asked_isolation),
            secrets=secrets,
            env_vars=_placeholders(secrets) if secrets else {},
        )

    def _held_secrets(self, network: "EgressPolicy | None") -> "tuple[EgressSecret, ...]":
        if not self.secrets:
            return ()
        from cove.core.planning import check_hosts
        from cove.core.vault import given

        for name, secret in self.secrets.items():
            if secret.from_vault is not None or name in (self.request.env or {}):
                why = "is in --env, too" if secret.from_vault is None else "comes from the vault, which a server keeps"
                raise error("INVALID_REQUEST", f"The secret {name} {why}.", remedy="Give it with --secret NAME@HOST.")
        held = tuple(given(name, secret) for name, secret in self.secrets.items())
        check_hosts(held, network)
        return held

    def _network(self, settings: "Settings | None") -> "EgressPolicy | None":
        if self.network is None or settings is None:
            return None
        from cove.server.package_registries import registries_of

        policy = self.network.in_force(registries=lambda: registries_of(settings.package_registries))
        return None if policy.is_closed else policy

    @property
    def _asked_isolation(self) -> Isolation | None:
        return Isolation(self.isolation) if self.isolation in frozenset(Isolation) else None


def _placeholders(secrets: "tuple[EgressSecret, ...]") -> dict[str, str]:
    from cove.core.planning import with_placeholders

    return with_placeholders({}, secrets)


@dataclass
class Timings:
    """Milliseconds since the process began (from /proc, so that interpreter start and imports count)."""

    marks: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])

    def mark(self, name: str) -> None:
        """Remember that `name` is done now."""
        self.marks.append((name, _milliseconds_since_start()))

    def print(self) -> None:
        """A table on stderr."""
        before = 0.0
        for name, now in self.marks:
            sys.stderr.write(f"{now - before:8.1f} ms  {name}\n")
            before = now
        sys.stderr.write(f"{before:8.1f} ms  in all\n")


def run_once(program: Program, data_dir: Path, *, as_json: bool, timings: bool, quiet: bool = False) -> int:
    """Run `program` in a new sandbox and destroy it. Unless `quiet`, stderr names the limits that do not hold here.

    Returns:
        The exit code to end with.

    Raises:
        CoveError: the template cannot be built, or no sandbox can be started.
    """
    watch = Timings()
    watch.mark("start of Python, imports")
    settings = _network_settings(data_dir) if program.network is not None else None
    spec = program.spec(_make_template(template_store(data_dir), program.template), settings)
    try:
        return asyncio.run(_run(program, spec, data_dir, watch, settings, as_json=as_json, quiet=quiet))
    finally:
        if timings:
            watch.mark("destroy the sandbox")
            watch.print()


def _make_template(store: TemplateStore, name: str) -> TemplateManifest:
    from cove.models.errors import CoveError

    try:
        return store.get(name)
    except CoveError as problem:
        if problem.code != "TEMPLATE_NOT_BUILT":
            raise
        from cove.cli.build_progress import build_with_progress

        return build_with_progress(store, name)


def _network_settings(data_dir: Path) -> "Settings":
    """What the operator says of networks, in variables: those of `cove serve`. Logs go to stderr: stdout is the
    program's.
    """
    import structlog

    from cove.program_logs import log_to_stderr
    from cove.server.settings import Settings

    log_to_stderr()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))

    try:
        return Settings(data_dir=data_dir)
    except pydantic.ValidationError as problem:
        first = problem.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise error("INVALID_REQUEST", f"COVE_{name.upper()}: {first['msg'].removeprefix('Value error, ')}.") from None


async def _run(
    program: Program,
    spec: SandboxSpec,
    data_dir: Path,
    watch: Timings,
    settings: "Settings | None",
    *,
    as_json: bool,
    quiet: bool,
) -> int:
    running = asyncio.current_task()
    assert running
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        async with embedded_host(
            data_dir,
            isolation=program.isolation,
            internal=settings.allow_internal if settings else (),
            nameservers=settings.nameservers if settings else (),
            egress_trust=Path(settings.egress_trust) if settings and settings.egress_trust else None,
        ) as host:
            record = await host.create(spec)
            if record.unenforced and not quiet:
                names = ", ".join(record.unenforced)
                sys.stderr.write(f"cove: this machine does not enforce {names}; `cove doctor` says how it would.\n")
            watch.mark("start the warm process, fork the sandbox")
            result = await _execute(record, program.request, echo=not as_json)
            watch.mark("run the program")
            return _finish(result, record, as_json=as_json)
    except asyncio.CancelledError:
        return 130


async def _execute(record: SandboxRecord, request: ExecuteRequest, *, echo: bool) -> dict[str, Any]:
    """Ask the agent for the stream of events; pass output on; return the result."""
    body = request.model_dump_json().encode()
    reader, writer = await asyncio.open_unix_connection(record.socket_path, limit=_MAX_LINE)
    try:
        async with asyncio.timeout(request.timeout + _EXTRA_SECONDS):
            writer.write(
                b"POST /execute/events HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            )
            head = await reader.readuntil(b"\r\n\r\n")
            if head.split(maxsplit=2)[1] != b"200":
                _refuse(json.loads(await reader.read(_MAX_LINE)))
            async for line in _lines(reader):
                event = json.loads(line)
                if event["type"] == "result":
                    return event
                if event["type"] == "error":
                    _refuse(event)
                if echo:
                    _pass_on(event["type"], event["data"])
    except (OSError, ValueError, asyncio.IncompleteReadError) as problem:
        raise error("AGENT_UNREACHABLE", f"The sandbox's agent broke off: {problem}.") from problem
    finally:
        writer.close()
    raise error("AGENT_UNREACHABLE", "The sandbox ended before the program did.", remedy="Was it out of memory?")


async def _lines(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    """The lines of a chunked body (RFC 9112, section 7.1)."""
    held = bytearray()
    while size := int(await reader.readline(), 16):
        if len(held) + size > _MAX_LINE:
            raise ValueError("a line is too long")
        held += (await reader.readexactly(size + 2))[:-2]
        *lines, rest = held.split(b"\n")
        held = bytearray(rest)
        for line in lines:
            yield bytes(line)


def _refuse(answer: dict[str, Any]) -> NoReturn:
    raise error(
        str(answer.get("code", "INTERNAL_ERROR")),
        str(answer.get("message", "The agent refused.")),
        remedy=str(answer.get("remedy", "")),
    )


def _pass_on(kind: str, text: str) -> None:
    stream = sys.stderr if kind == "stderr" else sys.stdout
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): end quietly, as programs do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise asyncio.CancelledError from None


def _finish(result: dict[str, Any], record: SandboxRecord, *, as_json: bool) -> int:
    if as_json:
        shown = {name: value for name, value in result.items() if name != "type" and value not in (None, [])}
        more: dict[str, Any] = {"isolation": str(record.isolation)}
        if record.unenforced:
            more["limits_not_enforced"] = record.unenforced
        print(json.dumps({**shown, **more}, indent=2))
    return int(result["exit_code"]) & 0xFF


def _milliseconds_since_start() -> float:
    with contextlib.suppress(OSError):
        fields = Path("/proc/self/stat").read_bytes().rpartition(b") ")[2].split()
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return 1000 * (since_boot - int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    return 0.0
