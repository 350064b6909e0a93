"""A server that root starts: it is a user of its own, and what it could do if it were somebody else's."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.e2e.conftest import Serve
from tests.e2e.running_server import (
    COVE,
    Process,
    RunningServer,
    clean_environment,
    data_directory,
    lives,
    new_key,
    run_cove,
    running_server,
    until,
)

from cove import Sandbox
from cove.host.identities import SERVER_USER

pytestmark = pytest.mark.usefixtures("needs_root")

SECONDS = 30.0


@pytest.fixture(scope="module")
def needs_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: others' servers are the user who starts them")


class Place(NamedTuple):
    """A server with a sandbox."""

    server: RunningServer
    key: str
    sandbox: Sandbox

    @property
    def data_dir(self) -> Path:
        return self.server.data_dir

    @property
    def record(self) -> dict[str, Any]:
        record = self.server.record(self.sandbox.sandbox_id)
        assert record
        return record


@pytest.fixture(scope="module")
def place(needs_root: None, built_data_dir: Path) -> Iterator[Place]:
    with data_directory(built_data_dir) as data_dir:
        # As an earlier version left it: a store of root's.
        key = new_key(data_dir, "before")
        assert (data_dir / "cove.db").is_file()
        with (
            running_server(data_dir, "--user", str(SERVER_USER)) as server,
            Sandbox.create("base", base_url=server.url, api_key=key, env_vars={"HIDDEN": "s3cret"}) as sandbox,
        ):
            yield Place(server, key, sandbox)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def as_user(uid: int, code: str, *arguments: str) -> str:
    """What a program of that user prints; Python may lie where that user cannot go, so it is started before."""
    become = f"import os, sys, socket, errno\nos.setgroups([]); os.setresgid({uid}, {uid}, {uid})\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{become}os.setresuid({uid}, {uid}, {uid})\n{code}", *arguments],
        capture_output=True,
        timeout=SECONDS,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


TRY = """
for path in sys.argv[1:]:
    for how in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, how | os.O_NONBLOCK))
            print("opened", path, how)
        except OSError:
            pass
"""

MAKE = """
for path in sys.argv[1:]:
    try:
        os.close(os.open(path + "/planted", os.O_WRONLY | os.O_CREAT, 0o600))
        print("made", path)
    except OSError:
        pass
    try:
        os.rename(path, path + ".away")
        print("moved", path)
    except OSError:
        pass
"""

CONNECT = """
for path in sys.argv[1:]:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    try:
        client.connect(path)
        client.sendall(b'{"id":1,"call":"list","args":{}}\\n')
        print("answered" if client.recv(1) else "hung up")
    except ConnectionError:
        print("hung up")
    except PermissionError:
        print("refused")
"""


def test_it_has_no_privileges_left(place: Place) -> None:
    supervisor, server = status_of(place.server.process.pid), status_of(place.server.pid)
    assert supervisor["Uid"].split() == ["0"] * 4, "the control case: who starts it has them"
    assert int(supervisor["CapEff"], 16) != 0
    assert server["Uid"].split() == server["Gid"].split() == [str(SERVER_USER)] * 4
    assert server["Groups"] == ""
    assert [int(server[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert server["NoNewPrivs"] == "1"
    daemon = place.server.host_daemon()
    assert daemon
    assert status_of(daemon.pid)["Uid"].split()[0] == "0"
    memory = [f"/proc/{place.server.pid}/{name}" for name in ("mem", "environ")]
    assert as_user(0, TRY, *memory).count("opened") >= 2
    assert as_user(SERVER_USER, TRY, *memory) == "", "not dumpable: its keys are not for others of its user (prctl(2))"


def test_it_serves_with_a_store_of_before(place: Place) -> None:
    assert place.sandbox.run_code("print(6 * 7)").stdout == "42\n"
    assert os.readlink(place.data_dir / "cove.db") == "store/cove.db"
    for name in ("store", "keys", "builds", "run/server"):
        status = (place.data_dir / name).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (SERVER_USER, 0o700), name
        assert all(path.stat().st_uid == SERVER_USER for path in (place.data_dir / name).iterdir()), name
    for name in (".", "run", "run/sandboxes", "run/sockets"):
        status = (place.data_dir / name).stat()
        assert status.st_uid == 0, name
        assert not status.st_mode & 0o022, name


def test_commands_of_root_leave_what_the_server_can_use(place: Place) -> None:
    key = new_key(place.data_dir, "beside", "--namespace", "other")
    assert {path.stat().st_uid for path in (place.data_dir / "store").iterdir()} == {SERVER_USER}
    with Sandbox.create("base", base_url=place.server.url, api_key=key) as made:
        assert made.run_code("print('new')").stdout == "new\n"
    assert run_cove("keys", "list", "--data-dir", str(place.data_dir)).returncode == 0
    assert run_cove("namespaces", "list", "--data-dir", str(place.data_dir)).returncode == 0


def test_its_user_can_read_and_change_nothing_of_what_sandboxes_stand_on(place: Place) -> None:
    run, sandbox_id = place.data_dir / "run", place.sandbox.sandbox_id
    layer = next((place.data_dir / "layers").iterdir())
    closed = [run / "sandboxes" / f"{sandbox_id}.json", *(run / "disks").glob("*"), run / "hostd.lock"]
    closed += (place.data_dir / "authority").iterdir()
    closed += [Path(f"/proc/{place.record['pid']}/mem"), Path(f"/proc/{place.record['pid']}/environ")]
    assert len(closed) >= 6
    assert as_user(0, TRY, *map(str, closed)).count("opened") >= len(closed), "the control case: root opens them"
    assert as_user(SERVER_USER, TRY, *map(str, closed)) == ""
    kept = [place.data_dir, run, run / "sandboxes", run / "sockets", layer, place.data_dir / "templates"]
    kept += [place.data_dir / "authority", place.data_dir / "trust"]
    assert as_user(SERVER_USER, MAKE, *map(str, kept)) == ""
    assert as_user(SERVER_USER, MAKE, str(place.data_dir / "builds")).split() == [
        "made",
        str(place.data_dir / "builds"),
    ]
    (place.data_dir / "builds/planted").unlink()


def test_only_its_user_and_root_talk_to_agents_and_to_the_host_daemon(place: Place) -> None:
    daemon, agent = str(place.data_dir / "run/hostd.sock"), place.record["socket_path"]
    for path in (daemon, agent):
        status = Path(path).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (SERVER_USER, 0o600)
    inside = 65534 if place.record["isolation"] == "gvisor" else Path(f"/proc/{place.record['pid']}").stat().st_uid
    for uid in {inside, 12345} - {0}:
        assert as_user(uid, CONNECT, daemon, agent).split() == ["refused", "refused"]
    assert as_user(SERVER_USER, CONNECT, daemon).split() == ["answered"]
    # Even where the mode lets somebody in, the kernel says who it is (SO_PEERCRED).
    Path(daemon).chmod(0o666)
    try:
        assert as_user(12345, CONNECT, daemon).split() == ["hung", "up"]
        assert as_user(SERVER_USER, CONNECT, daemon).split() == ["answered"]
    finally:
        Path(daemon).chmod(0o600)


def asked(path: Path, call: str, **arguments: object) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rb") as answers:
        client.settimeout(SECONDS)
        client.connect(str(path))
        client.sendall(json.dumps({"id": 1, "call": call, "args": arguments}).encode() + b"\n")
        return json.loads(answers.readline())


def test_what_the_host_daemon_refuses_whoever_asks(place: Place) -> None:
    daemon = place.data_dir / "run/hostd.sock"
    spec = {"sandbox_id": "1763382095i648uu1o", "template": "base"}
    for more in (
        {"template": "../../../tmp/x"},
        {"sandbox_id": "../../../tmp/x"},
        {"mounts": ["/etc:/etc"]},
        {"layers": ["/"]},
        {"limits": {"memory_mb": 10**6}},
        {"limits": {"vcpu": 200}},
        {"limits": {"devices": 1}},
        {"owned_directories": ["/etc"]},
        {"owned_directories": ["/../x"]},
        {"env_vars": {"A": "b" * 300_000}},
        {"socket_path": "/run/docker.sock"},
        {"isolation": "fake"},
    ):
        answer = asked(daemon, "create", spec={**spec, **more})
        assert answer["error"]["code"] in {"INVALID_REQUEST", "ISOLATION_UNAVAILABLE"}, (more, answer)
    archive = place.data_dir / "builds/7/0.tar"
    derivation = {"name": "t7", "base": "base", "display_name": "", "description": ""}
    for outside in ("/etc/shadow", "../../../etc/shadow", str(archive)):
        directories = [{"inside": "/home/user", "archive": outside}]
        answer = asked(daemon, "derive_template", derivation={**derivation, "directories": directories})
        assert answer["error"]["code"] == "INVALID_REQUEST", outside
    archive.parent.mkdir()
    archive.symlink_to("/etc/shadow")
    try:
        directories = [{"inside": "/home/user", "archive": "7/0.tar"}]
        answer = asked(daemon, "derive_template", derivation={**derivation, "directories": directories})
        assert "cannot be read" in answer["error"]["message"]
    finally:
        archive.unlink()
        archive.parent.rmdir()
    assert [one["sandbox_id"] for one in asked(daemon, "list")["ok"] if not one["pooled"]] == [place.sandbox.sandbox_id]


def test_it_dies_with_its_supervisor_and_its_supervisor_with_it(serve: Serve) -> None:
    server = serve()
    with Sandbox.create("base", base_url=server.url) as sandbox:
        for victim in ("supervisor", "server"):
            pid, daemon = server.pid, server.host_daemon()
            assert daemon
            process = Process(pid, int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[19]))
            if victim == "supervisor":
                server.kill()
                until(lambda gone=process: not lives(gone), seconds=5, what="the server ends with its supervisor")
            else:
                os.kill(pid, signal.SIGKILL)
                assert server.process.wait(SECONDS) == 70
            assert lives(daemon), "the host daemon waits for the next server"
            server = serve("--port", server.url.rpartition(":")[2])
            assert sandbox.run_code(f"print('{victim}')").stdout == f"{victim}\n"
            assert server.host_daemon() not in {None, daemon}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--user", "nobody-like-this"), b"is no user of this machine"),
        (("--user", str(SERVER_USER + 70_000)), b"is no user of this machine"),
        (("--user", str(2**32)), b"is no user of this machine"),
        (("--isolation", "warp"), b"isolation"),
    ],
)
def test_starts_that_cannot_be_end_with_a_reason(own_data_dir: Path, options: tuple[str, ...], said: bytes) -> None:
    done = subprocess.run(
        [*COVE, "serve", "--dev", "--port", "0", "--data-dir", str(own_data_dir), *options],
        capture_output=True,
        timeout=SECONDS,
        env=clean_environment(),
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert b"Traceback" not in done.stderr


def test_root_can_stay_root(serve: Serve) -> None:
    server = serve("--user", "root")
    assert server.pid == server.process.pid
    assert status_of(server.pid)["Uid"].split()[0] == "0"
