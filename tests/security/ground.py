"""Where attacks take place: one server, an attacker and a victim of two tenants, and what must stay as it was."""

import hashlib
import itertools
import os
import socket
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.conftest import mounted_below
from tests.e2e.running_server import Process, RunningServer, lives
from tests.security.programs import Answers, answers_of

SECONDS = 60.0
HOST_SECRET = "host-secret-4b1f"
VICTIM_SECRET = "victim-secret-93d7"
MARK = "cove-attack-"
"""In the command line of every attacking program."""

_numbers = itertools.count()
_SETTINGS = ("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "kernel/domainname", "vm/overcommit_memory")


class Inside:
    """One sandbox, as its tenant has it."""

    def __init__(self, server: RunningServer, key: str, created: dict[str, Any]) -> None:
        self.server = server
        self.key = key
        self.sandbox_id: str = created["id"]
        self.token: str = created["auth_token"]
        self.isolation: str = created["isolation"]
        self.http = httpx2.Client(
            base_url=f"{server.url}/sandboxes/{self.sandbox_id}",
            headers={"Authorization": f"Bearer {self.token}"},
            timeout=SECONDS,
            trust_env=False,
            verify=False,
        )

    def execute(self, code: str, language: str = "python", **fields: Any) -> dict[str, Any]:
        """The result of a program."""
        body = {"code": code, "language": language, "timeout": 30, **fields}
        answer = self.http.post("/execute", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def command(self, command: str, **fields: Any) -> dict[str, Any]:
        """The result of a shell command."""
        answer = self.http.post("/commands/run", json={"command": command, "timeout": 30, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def write(self, path: str, content: str) -> None:
        """A file."""
        answer = self.http.post("/files/write", json={"path": path, "content": content})
        assert answer.status_code < 300, answer.text

    def attack(self, source: str) -> Answers:
        """What became of the attempts of a program, in a process of its own."""
        path = f"/tmp/{MARK}{next(_numbers)}.py"
        self.write(path, source)
        result = self.command(f"python3 {path}")
        assert result["exit_code"] == 0, result
        assert VICTIM_SECRET not in result["stdout"]
        assert HOST_SECRET not in result["stdout"]
        return answers_of(result["stdout"])

    def kill(self) -> None:
        """End it."""
        self.http.close()
        with tenant(self.server, self.key) as client:
            client.delete(f"/v1/sandboxes/{self.sandbox_id}")


def tenant(server: RunningServer, key: str) -> httpx2.Client:
    """The control plane with a key."""
    return httpx2.Client(
        base_url=server.url, headers={"X-API-Key": key}, timeout=SECONDS, trust_env=False, verify=False
    )


class Ground(NamedTuple):
    """What the tests of one driver share."""

    server: RunningServer
    driver: str
    red: str
    blue: str
    attacker: Inside
    victim: Inside

    def make(self, **fields: Any) -> Inside:
        """Another sandbox of the attacker; whoever makes it kills it."""
        return make_sandbox(self.server, self.red, self.driver, **fields)

    @property
    def own_kernel(self) -> bool:
        """Whether calls of programs reach a kernel that is not the host's."""
        return self.driver != "namespace"


def make_sandbox(server: RunningServer, key: str, driver: str, **fields: Any) -> Inside:
    """A sandbox with this isolation; the test is skipped, with the host's reason, where there is none."""
    body = {"template_name": "base", "isolation": driver, "timeout_seconds": 600, **fields}
    with tenant(server, key) as client:
        answer = client.post("/v1/sandboxes", json=body)
    if answer.status_code != 201 and answer.json()["code"] == "ISOLATION_UNAVAILABLE":
        pytest.skip(answer.json()["message"])
    assert answer.status_code == 201, answer.text
    created = answer.json()
    assert created["isolation"] == driver
    return Inside(server, key, created)


class HostState(NamedTuple):
    """What no attack may change."""

    files: dict[str, str]
    settings: dict[str, str]
    name: str
    mounts_below: tuple[str, ...]
    read_only: frozenset[str]
    daemon: Process | None

    @classmethod
    def now(cls, server: RunningServer) -> "HostState":
        """As it is."""
        return cls(
            {str(path): _digest(path) for path in markers(server)},
            {name: Path("/proc/sys", name).read_text() for name in _SETTINGS if Path("/proc/sys", name).exists()},
            socket.gethostname(),
            tuple(point for point in mounted_below(server.data_dir) if "/run/" not in point),
            frozenset(_read_only_mounts()),
            server.host_daemon(),
        )

    def differences(self, server: RunningServer) -> list[str]:
        """What is not as it was, in words."""
        now = HostState.now(server)
        return [
            *(
                f"{name}: {old} is now {new}"
                for name, old, new in zip(self._fields, self, now, strict=True)
                if old != new
            ),
            *(f"escaped: {line}" for line in _escaped()),
            *([] if server.process.poll() is None else ["the server has ended"]),
            *([] if self.daemon and lives(self.daemon) else ["the host daemon has ended"]),
        ]


def markers(server: RunningServer) -> list[Path]:
    """Files of the host that hold its secret, beside the sandboxes' own."""
    return [server.data_dir / "marker" / "secret", server.data_dir / "keys" / "agent-tokens.pem", Path("/etc/passwd")]


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _digest(path: Path) -> str:
    status = path.stat()
    return f"{hashlib.sha256(path.read_bytes()).hexdigest()} {status.st_mode:o} {status.st_uid}"


def _read_only_mounts() -> list[str]:
    """Of this machine, but those that come and go with sandboxes and builds."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return [f"{fields[0]} {fields[4]}" for fields in lines if "ro" in fields[5].split(",") and "cove" not in fields[4]]


def _escaped() -> list[str]:
    """Attacking programs in the host's own pid namespace."""
    here = os.readlink("/proc/self/ns/pid")
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            if MARK.encode() in line and os.readlink(entry / "ns" / "pid") == here:
                found.append(f"{entry.name}: {line!r}")
        except OSError:
            continue
    return found
