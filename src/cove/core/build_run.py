"""One build: its steps run in a sandbox, and what they leave becomes the template's own layer.

The steps are a tenant's programs, so they run where those run: in a sandbox, as its user, with its limits. Of that
user's directories the content is taken over; other places it cannot write to.
"""

import posixpath
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cove.core.build_log import BuildLog
from cove.models.errors import CoveError, error
from cove.models.execution import CommandRequest, CommandResult
from cove.models.hosts import SandboxRecord
from cove.models.template_builds import BuildStep, BuildTemplate, ReadyCheck, StepType
from cove.models.templates import CapturedDirectory, is_ownable

STEP_SECONDS = 1200.0
WORKSPACE = "/workspace"
_CAPTURED = ("/home/user", WORKSPACE)
_UPLOAD = "/tmp/.cove-upload"
_SHORT = 120
_PROBE_SECONDS = 10.0

_COPY = f"""
set -eu
shopt -s nullglob dotglob
case $1 in /*) target=$1 ;; *) target=$PWD/$1 ;; esac
shift
stage=$(mktemp -d /tmp/copy.XXXXXX)
trap 'rm -rf "$stage" {_UPLOAD}' EXIT
tar -xzf {_UPLOAD} -C "$stage" --no-same-owner
cd "$stage"
found=()
for pattern in "$@"; do found+=($pattern); done
[ ${{#found[@]}} -gt 0 ] || {{ echo "nothing to copy: $*" >&2; exit 1; }}
for one in "${{found[@]}}"; do
    if [ -d "$one" ] && [ ! -L "$one" ]; then
        mkdir -p "$target"
        cp -a "$one/." "$target/"
    elif [ ${{#found[@]}} -gt 1 ] || [ -d "$target" ] || [ "${{target%/}}" != "$target" ]; then
        mkdir -p "$target"
        cp -a "$one" "$target/"
    else
        mkdir -p "$(dirname "$target")"
        cp -a "$one" "$target"
    fi
done
"""
"""Arguments: destination, sources. A directory's content is copied, a file keeps its name unless the destination is a
name of its own, as builders of images do it."""


class BuildGuest(Protocol):
    """What a build asks of the agent in its sandbox. Each may raise AGENT_UNREACHABLE."""

    async def run(self, record: SandboxRecord, command: CommandRequest) -> CommandResult:
        """Run a command to its end."""
        ...

    async def start(self, record: SandboxRecord, command: str) -> None:
        """Start a command in the background."""
        ...

    async def upload(self, record: SandboxRecord, source: Path, target: str) -> None:
        """Write a file of the server's into the sandbox."""
        ...

    async def capture(self, record: SandboxRecord, directory: str, target: Path, *, max_bytes: int) -> None:
        """Write a directory of the sandbox into a tar file of the server's.

        Raises:
            CoveError: TEMPLATE_BUILD_FAILED when it is larger.
        """
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """What is being done; percent of the whole build."""

    step: str
    percent: int


Report = Callable[[Progress], Awaitable[None]]


class BuildRun:
    """The steps of one build, in one sandbox."""

    def __init__(
        self, request: BuildTemplate, uploads: Mapping[str, Path], guest: BuildGuest, log: BuildLog, report: Report
    ) -> None:
        self._request = request
        self._uploads = uploads
        self._guest = guest
        self._log = log
        self._report = report
        self._directory = WORKSPACE
        self.environment: dict[str, str] = {}

    async def steps(self, record: SandboxRecord) -> None:
        """Run all steps, and the start command with its check.

        Raises:
            CoveError: TEMPLATE_BUILD_FAILED naming the step.
        """
        steps = self._request.steps
        for number, step in enumerate(steps, start=1):
            shown = f"{step.type} {' '.join(step.args)}".replace("\n", " ")[:_SHORT]
            self._log.say(f"[{number}/{len(steps)}] {shown}")
            await self._report(Progress(shown, 5 + 80 * (number - 1) // len(steps)))
            await self._step(record, step, f"Step {number} ({shown})")
        if self._request.start_command:
            await self._try_start(record, self._request.start_command)

    async def capture(self, record: SandboxRecord, directory: Path) -> tuple[CapturedDirectory, ...]:
        """What the steps left, as tar files in `directory`."""
        captured: list[CapturedDirectory] = []
        left = self._request.disk_gb * 1024**3
        for index, inside in enumerate((*_CAPTURED, *owned_directories(self._request))):
            archive = directory / f"{index}.tar"
            await self._guest.capture(record, inside, archive, max_bytes=left)
            left -= archive.stat().st_size
            captured.append(CapturedDirectory(inside=inside, archive=f"{directory.name}/{archive.name}"))
        return tuple(captured)

    async def _step(self, record: SandboxRecord, step: BuildStep, name: str) -> None:
        match step.type:
            case StepType.ENV:
                self.environment[step.args[0]] = step.args[1]
            case StepType.WORKDIR:
                self._directory = posixpath.join(self._directory, step.args[0])
                await self._run(record, name, "bash", ("-c", 'mkdir -p -- "$1"', "mkdir", self._directory), "/")
            case StepType.USER:
                self._log.say("Steps and programs run as the user of the sandbox, whatever the name.")
            case StepType.RUN:
                await self._run(record, name, "bash", ("-c", step.args[0]), self._directory)
            case StepType.COPY:
                await self._guest.upload(record, self._uploads[step.files_hash or ""], _UPLOAD)
                arguments = (step.args[1], *step.args[0].split(","))
                await self._run(record, name, "bash", ("-c", _COPY, "copy", *arguments), self._directory)

    async def _run(self, record: SandboxRecord, name: str, command: str, args: tuple[str, ...], workdir: str) -> None:
        request = CommandRequest(
            command=command, args=args, timeout=STEP_SECONDS, workdir=workdir, env=self.environment or None
        )
        result = await self._guest.run(record, request)
        self._log.output(result.stdout)
        self._log.output(result.stderr)
        if result.exit_code == 0:
            return
        why = f"took longer than {STEP_SECONDS:.0f} s" if result.timed_out else f"ended with {result.exit_code}"
        last = result.stderr.strip().rpartition("\n")[2][:_SHORT]
        self._log.say(f"ERROR: {name} {why}")
        raise _failed(f"{name} {why}{': ' + last if last else ''}.")

    async def _try_start(self, record: SandboxRecord, command: str) -> None:
        self._log.say(f"START {command[:_SHORT]}")
        await self._report(Progress("Trying the start command", 85))
        await self._guest.start(record, command)
        if self._request.ready is not None:
            await self._await_ready(record, self._request.ready)

    async def _await_ready(self, record: SandboxRecord, check: ReadyCheck) -> None:
        """One command inside that asks again and again."""
        probe = ready_probe(check)
        loop = f"until {probe}; do sleep {check.interval / 1000:.3f}; done"
        began = time.monotonic()
        timeout = check.timeout / 1000
        request = CommandRequest(command=loop, timeout=timeout, env=self.environment or None)
        result = await self._guest.run(record, request)
        if result.exit_code != 0:
            self._log.say("ERROR: the start command was not ready in time")
            raise _failed(f"The start command was not ready within {timeout:g} s ({check.type}).")
        self._log.say(f"Ready after {time.monotonic() - began:.1f} s")


def owned_directories(request: BuildTemplate) -> tuple[str, ...]:
    """Directories right below the root that COPY and WORKDIR steps name: the sandbox's user gets them."""
    named = [step.args[-1] for step in request.steps if step.type in (StepType.COPY, StepType.WORKDIR)]
    tops = ["/" + path.split("/")[1] for path in map(posixpath.normpath, named) if path.startswith("/")]
    return tuple(dict.fromkeys(top for top in tops if is_ownable(top)))


def ready_probe(check: ReadyCheck) -> str:
    """Shell text that succeeds once the check holds; what the client sent is quoted, but for `command`.

    Raises:
        CoveError: INVALID_REQUEST when the check lacks what its type needs.
    """
    match check.type, check.port, check.url, check.path, check.process_name, check.command:
        case "port", int(port), *_:
            return f"(exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null"
        case "url", _, str(url), *_:
            return f"curl -fsS -m {_PROBE_SECONDS:.0f} -o /dev/null -- {_quoted(url)} 2>/dev/null"
        case "file", _, _, str(path), *_:
            return f"[ -e {_quoted(path)} ]"
        case "process", _, _, _, str(name), _:
            return f"grep -qsxF -- {_quoted(name[:15])} /proc/[0-9]*/comm"
        case "command", *_, str(command):
            return f"bash -c {_quoted(command)} >/dev/null 2>&1"
        case _:
            raise error("INVALID_REQUEST", f"A ready check of type {check.type} lacks its value.", field="readyCmd")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _failed(message: str) -> CoveError:
    return error("TEMPLATE_BUILD_FAILED", message, remedy="The build's log has what was printed.")
