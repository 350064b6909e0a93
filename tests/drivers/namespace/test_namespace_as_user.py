"""The namespace driver of an ordinary user, with a template that root built where the tests run as root."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contract.driver_fixtures import built_template, short_directory
from tests.ordinary_user import USER, ordinary_python

from cove.linux import landlock

PROGRAM = """
import asyncio, json, os, sys
from pathlib import Path
import httpx2
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, detect
from cove.host.templates.store import TemplateStore
from cove.linux.clone import is_alive
from cove.models.errors import CoveError
from cove.models.hosts import SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.limits import Limits

async def execute(record, language, code):
    transport = httpx2.AsyncHTTPTransport(uds=record.socket_path, verify=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=30) as client:
        return (await client.post("/execute", json={"language": language, "code": code})).json()

async def main(run_dir, data_dir):
    driver = NamespaceDriver(run_dir, cgroups=Cgroups(detect(), prefix="user-"), disks=None)
    facts = {"report": (await driver.check()).model_dump(mode="json")}
    if facts["report"]["available"]:
        template = TemplateStore(data_dir, owner=None).get("base")
        spec = SandboxSpec(sandbox_id=new_sandbox_id(), template="base", limits=Limits(disk_mb=64, pids=64))
        record = await driver.create(spec, template)
        try:
            facts["host uid"] = os.stat(f"/proc/{record.pid}").st_uid
            for name, (language, code) in json.loads(sys.argv[3]).items():
                facts[name] = await execute(record, language, code)
            try:
                await driver.stop(record)
            except CoveError as refused:
                facts["stop"] = [refused.code, refused.remedy, is_alive(record.pid, record.pid_started)]
        finally:
            await driver.destroy(record)
            await driver.close()
        facts["alive"] = is_alive(record.pid, record.pid_started)
        facts["sockets"] = os.listdir(run_dir / "sockets")
    print(json.dumps(facts))

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""
CODE = {
    "python": ("python", "print(6 * 7)"),
    "status": ("bash", "cat /proc/self/status"),
    "write": ("bash", "for d in /workspace /home/user /tmp /var/tmp; do echo x > $d/f && cat $d/f; done"),
    "system": ("bash", "(echo x > /usr/f) 2>/dev/null || (rm -f /usr/bin/env) 2>/dev/null || echo refused"),
    "owner of /etc": ("bash", "stat -c %u /etc"),
    "etc": ("bash", "(echo x > /etc/new) 2>/dev/null || (echo x >> /etc/hosts) 2>/dev/null || echo refused"),
    "processes": ("bash", "ls /proc | grep -cE '^[0-9]+$'"),
    "interfaces": ("python", "import socket; print([name for _, name in socket.if_nameindex()])"),
    "disk": ("bash", "head -c 100000000 /dev/zero > /workspace/big || echo full; rm /workspace/big"),
}


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    with short_directory() as path:
        (path / "run").mkdir()
        if os.geteuid() == 0:
            os.chown(path / "run", USER, USER)
        yield path


@pytest.fixture(scope="module")
def python(directory: Path) -> tuple[str, ...]:
    return ordinary_python(directory)


@pytest.fixture(scope="module")
def facts(python: tuple[str, ...], directory: Path, built_data_dir: Path) -> dict[str, Any]:
    """What an ordinary user's sandbox said, and what the driver said of itself."""
    built_template(built_data_dir, "base")
    done = subprocess.run(
        [*python, "-c", PROGRAM, str(directory / "run"), str(built_data_dir), json.dumps(CODE)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if not found["report"]["available"]:
        assert found["report"]["remedies"]
        pytest.skip(f"ordinary users cannot start sandboxes here: {found['report']['problems']}")
    return found


def printed(facts: dict[str, Any], name: str) -> str:
    assert facts[name]["exit_code"] == 0, facts[name]
    return facts[name]["stdout"].strip()


def test_code_runs_and_nothing_is_left(facts: dict[str, Any]) -> None:
    assert printed(facts, "python") == "42"
    assert (facts["alive"], facts["sockets"]) == (False, [])


def test_the_walls_are_the_same(facts: dict[str, Any]) -> None:
    lines = printed(facts, "status").splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    assert status["Uid"] == ["1000"] * 4
    assert {status[f"Cap{name}"][0] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
    assert printed(facts, "interfaces") == "['lo']"
    assert int(printed(facts, "processes")) < 12
    assert printed(facts, "system") == "refused"


def test_landlock_stands_where_permissions_do_not(facts: dict[str, Any]) -> None:
    """Here the user owns what the sandbox was given at its start: only Landlock keeps it."""
    if landlock.abi() < landlock.OLDEST_ABI:
        pytest.skip("this kernel has no Landlock in force that is new enough")
    assert printed(facts, "owner of /etc") == "1000", "the control: permissions would allow it"
    assert printed(facts, "etc") == "refused"


def test_the_users_directories_can_be_written_and_are_bounded(facts: dict[str, Any]) -> None:
    assert printed(facts, "write") == "x\nx\nx\nx"
    assert printed(facts, "disk") == "full"


def test_it_cannot_be_stopped_and_is_left_as_it_is(facts: dict[str, Any]) -> None:
    assert not facts["report"]["capabilities"]["stop_start"]
    code, remedy, alive = facts["stop"]
    assert code == "UNSUPPORTED"
    assert "root" in remedy
    assert alive


def test_what_is_lost_is_said(facts: dict[str, Any]) -> None:
    lost = " ".join(facts["report"]["lost"])
    assert "own user" in lost
    assert "disk is memory" in lost
    assert facts["host uid"] == (USER if os.geteuid() == 0 else os.geteuid())
    enforced = facts["report"]["capabilities"]["limits"]
    assert ("memory_mb" in enforced) != ("memory_mb" in lost)
