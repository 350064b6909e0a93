"""What is particular to sandboxes behind a kernel of their own; what all drivers promise is in the driver battery."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.contract.driver_fixtures import (
    SMALL,
    GvisorSubject,
    Inside,
    built_template,
    clean_up,
    need_runsc,
    short_directory,
    spec_of,
    until,
)

from cove.drivers.gvisor.driver import GvisorDriver
from cove.host.identities import TEMPLATE_OWNER, host_id
from cove.models.errors import CoveError
from cove.models.hosts import SandboxRecord

pytestmark = pytest.mark.anyio

DRAW = """
import json, os, random, secrets, ssl, subprocess, sys, tempfile, time, uuid, numpy
fresh = [sys.executable, "-c", "print(hash('text'))"]
print(json.dumps({
    "random": random.random(),
    "secrets": secrets.token_hex(),
    "urandom": os.urandom(8).hex(),
    "ssl": ssl.RAND_bytes(8).hex(),
    "uuid1": str(uuid.uuid1()),
    "uuid4": str(uuid.uuid4()),
    "tempfile": tempfile.mktemp(),
    "hash of a new process": subprocess.run(fresh, capture_output=True, check=True).stdout.decode(),
    "numpy": numpy.random.random(),
}))
"""
LOOK = """
import json, os, socket
status = dict(line.rstrip().partition(":\\t")[::2] for line in open("/proc/self/status"))
def may(path):
    try:
        with open(path, "w"):
            return True
    except OSError:
        return False
print(json.dumps({
    "release": os.uname().release,
    "host": socket.gethostname(),
    "ids": [os.getuid(), os.getgid(), os.getgroups()],
    "capabilities": sorted({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd")}),
    "interfaces": sorted(name for _, name in socket.if_nameindex()),
    "written": [path for path in ("/run/cove/file", "/dev/pids/sandbox/pids.max", "/dev/pids/cgroup.procs",
                                  "/dev/pids/sandbox/cgroup.procs", "/dev/x", "/etc/x", "/proc/1/mem") if may(path)],
    "share": [mode for mode in (os.R_OK, os.W_OK, os.X_OK) if os.access("/run/cove", mode)],
    "tmp": os.listdir("/tmp"),
    "owners": [os.stat("/usr").st_uid, os.stat("/workspace").st_uid, os.stat("/home/user").st_uid],
    "environment": [name for name in os.environ if name.startswith(("PYTHONPATH", "COVE"))],
}))
"""


class Ground(NamedTuple):
    subject: GvisorSubject
    driver: GvisorDriver
    pair: tuple[SandboxRecord, SandboxRecord]


@pytest.fixture(scope="module")
async def ground(built_data_dir: Path) -> AsyncIterator[Ground]:
    """One driver, and two sandboxes of it; at the end nothing is left."""
    need_runsc()
    with short_directory() as directory:
        template = built_template(built_data_dir, "code-interpreter")
        subject = GvisorSubject(directory, template, checkpoints=built_data_dir / "checkpoints")
        driver = subject.open()
        try:
            first = await driver.create(spec_of(subject), template)
            second = await driver.create(spec_of(subject), template)
            yield Ground(subject, driver, (first, second))
            await asyncio.gather(driver.destroy(first), driver.destroy(second))
        finally:
            await driver.close()
            await clean_up(subject)


async def seen(record: SandboxRecord, code: str) -> dict[str, Any]:
    return json.loads(await Inside(record).output(code, "python"))


async def test_two_sandboxes_of_one_checkpoint_draw_different_numbers(ground: Ground) -> None:
    first, second = [await seen(record, DRAW) for record in ground.pair]
    assert [name for name in first if first[name] == second[name]] == []


async def test_its_clocks_are_right(ground: Ground) -> None:
    code = "import time; print(repr((time.time(), time.monotonic())))"
    before = time.time()
    wall, first = eval(await Inside(ground.pair[0]).output(code, "python"))
    assert before - 1 <= wall <= time.time() + 1
    _, second = eval(await Inside(ground.pair[0]).output("import time; time.sleep(0.2);" + code, "python"))
    assert 0.2 <= second - first <= 0.2 + (time.time() - before)


async def test_what_a_program_can_see_and_may_do(ground: Ground) -> None:
    found = await seen(ground.pair[0], LOOK)
    assert (
        found
        == {
            "release": "4.4.0",  # gVisor's own kernel, not the host's
            "host": f"sandbox-{ground.pair[0].sandbox_id[-8:]}",
            "ids": [1000, 1000, []],
            "capabilities": ["0000000000000000"],
            "interfaces": ["eth0", "lo"],  # of its own kernel: a wire at whose other end nobody is
            "written": [],
            "share": [],
            "tmp": [],
            "owners": [0, 1000, 1000],
            "environment": [],
        }
    )
    assert os.uname().release != "4.4.0"


async def test_its_socket_is_out_of_its_reach(ground: Ground) -> None:
    record = ground.pair[0]
    assert stat.S_ISSOCK(os.lstat(record.socket_path).st_mode)
    assert os.stat(record.socket_path).st_uid == os.geteuid()
    share = ground.subject.directory / "boxes" / record.driver_state["kit"] / "share"
    assert list(share.iterdir()) == []
    assert (share.stat().st_uid, stat.S_IMODE(share.stat().st_mode)) == (os.geteuid(), 0o500)
    # Control: before its birth the directory was the sandbox user's, whose id the host's kernel checks.
    assert host_id(int(record.driver_state["slot"]), 1000) != os.geteuid()
    tried = await Inside(record).run("ln -s /run/docker.sock /run/cove/agent.sock; rm -rf /run/cove; mkdir /run/cove")
    assert tried["stderr"].count("cannot") + tried["stderr"].count("failed") >= 2
    assert await Inside(record).health() == 200


async def test_no_process_of_it_is_root_on_the_host(ground: Ground) -> None:
    users = {os.stat(f"/proc/{process.pid}").st_uid for process in Inside(ground.pair[0]).processes()}
    assert 0 not in users
    for process in Inside(ground.pair[0]).processes():
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert "Seccomp:\t2" in status, status
        assert os.readlink(f"/proc/{process.pid}/ns/net") != os.readlink("/proc/self/ns/net")


async def test_processes_are_counted_inside_and_the_kernel_survives(ground: Ground) -> None:
    code = "for i in range(400): threading.Thread(target=time.sleep, args=(5,), daemon=True).start()"
    result = await Inside(ground.pair[1]).run(f"import threading, time\n{code}", "python")
    assert "can't start new thread" in result["stderr"]
    assert await Inside(ground.pair[1]).health() == 200


async def test_languages(ground: Ground) -> None:
    inside = Inside(ground.pair[0])
    assert await inside.output("kept = 41", "python") == ""
    assert await inside.output("print(kept + 1)", "python") == "42"
    assert await inside.output("import pandas; print(pandas.Series([1, 2]).sum())", "python") == "3"
    assert await inside.output("console.log(6 * 7)", "javascript") == "42"
    assert await inside.output('package main\nimport "fmt"\nfunc main() { fmt.Println(6 * 7) }', "go") == "42"


async def test_a_timeout_ends_the_whole_tree(ground: Ground) -> None:
    inside = Inside(ground.pair[0])
    result = await inside.run("(setsid sleep 987 &) ; sleep 988", timeout=1)
    assert result["timed_out"]
    assert await inside.output("pgrep -c -f 'sleep 98[78]' || true") == "0"


async def test_a_template_of_a_tenant_shares_the_checkpoint_of_its_base(ground: Ground, tmp_path: Path) -> None:
    base = ground.subject.template
    layer = tmp_path / "layer"
    (layer / "app").mkdir(parents=True)
    (layer / "app" / "made").write_text("by a build")
    for path in (layer, *layer.rglob("*")):
        os.chown(path, TEMPLATE_OWNER, TEMPLATE_OWNER)
    derived = base.model_copy(
        update={
            "name": "t1",
            "digest": base.digest[:-4] + "feed",
            "layers": (str(layer), *base.layers),
            "own_layers": (str(layer),),
            "environment": {**base.environment, "BUILT": "yes"},
            "own_environment": {"BUILT": "yes"},
            "owned_directories": ("/app",),
        }
    )
    images = sorted((ground.subject.checkpoints).iterdir())
    record = await ground.driver.create(spec_of(ground.subject), derived)
    try:
        assert await Inside(record).output("cat /app/made; touch /app/own; echo $BUILT") == "by a build" + "yes"
        assert sorted(ground.subject.checkpoints.iterdir()) == images
    finally:
        await ground.driver.destroy(record)


async def test_a_broken_checkpoint_is_made_anew(ground: Ground, tmp_path: Path) -> None:
    template = built_template(Path(ground.subject.checkpoints).parent, "base")
    directory = tmp_path / "checkpoints"
    subject = GvisorSubject(ground.subject.directory / "other", template, checkpoints=directory)
    driver = subject.open(outlive_host=False)
    try:
        await driver.warm(template)
        (image,) = directory.iterdir()
        assert (stat.S_IMODE(directory.stat().st_mode), directory.stat().st_uid) == (0o700, os.geteuid())
        (image / "checkpoint.img").write_bytes(b"broken")
        record = await driver.create(spec_of(subject), template)
        assert await Inside(record).health() == 200
        await driver.destroy(record)
    finally:
        await driver.close()
        await clean_up(subject)


WARMING = """
import asyncio, sys
from pathlib import Path
from tests.contract.driver_fixtures import GvisorSubject, built_template
async def main():
    built = Path(sys.argv[2])
    template = built_template(built, "base")
    driver = GvisorSubject(Path(sys.argv[1]), template, checkpoints=built / "checkpoints").open()
    await driver.warm(template)
    while not driver.ready_members:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_members_end_with_a_daemon_that_is_killed(ground: Ground, built_data_dir: Path) -> None:
    directory = ground.subject.directory / "daemon"
    directory.mkdir()
    subject = GvisorSubject(directory, built_template(built_data_dir, "base"), checkpoints=ground.subject.checkpoints)
    command = [sys.executable, "-c", WARMING, str(directory), str(built_data_dir)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as daemon:
        try:
            assert daemon.stdout
            assert await asyncio.to_thread(daemon.stdout.readline) == b"ready\n"
            members = subject.kept([])
            assert members
        finally:
            daemon.send_signal(signal.SIGKILL)
    await until(lambda: not any(member.alive for member in members))
    driver = subject.open()
    await driver.sweep(frozenset())
    await driver.close()
    await clean_up(subject)


async def test_previews_go_through_the_agent(ground: Ground) -> None:
    from cove.server.gateway.dialling import AgentDialer

    record = ground.pair[0]
    await Inside(record).output("(python3 -m http.server 3210 </dev/null >/dev/null 2>&1 &)")
    dialer = AgentDialer()
    try:
        answer = b""
        async with asyncio.timeout(20):
            while not answer:
                with contextlib.suppress(CoveError):
                    sock = await dialer.dial(record.socket_path, 3210)
                    loop = asyncio.get_running_loop()
                    with sock:
                        assert sock.family == socket.AF_UNIX
                        await loop.sock_sendall(sock, b"GET /etc HTTP/1.0\r\n\r\n")
                        while data := await loop.sock_recv(sock, 65536):
                            answer += data
        assert answer.startswith(b"HTTP/1.0 ")
        with pytest.raises(CoveError) as caught:
            await dialer.dial(record.socket_path, 3211)
        assert caught.value.code == "PORT_NOT_OPEN"
    finally:
        dialer.close()


async def test_limits_are_its_own_beside_those_of_its_kernel(ground: Ground) -> None:
    groups = [Path(group) for group in ground.pair[0].driver_state["groups"].splitlines()]
    limits = {
        path.name: int(path.read_text())
        for group in groups
        for path in (group / "memory.limit_in_bytes", group / "memory.max", group / "pids.max")
        if path.exists()
    }
    assert limits["pids.max"] == 128 + 4 * SMALL.pids
    memory = limits.get("memory.limit_in_bytes") or limits["memory.max"]
    assert memory == (SMALL.memory_mb + 64) * 2**20
