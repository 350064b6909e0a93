"""An ordinary user with subordinate ids and delegated control groups has nearly what root has."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.contract.driver_fixtures import built_template, short_directory
from tests.ordinary_user import Account, account, ordinary_python

PROGRAM = """
import asyncio, json, sys
from pathlib import Path
import httpx2
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, detect
from cove.host.templates.store import TemplateStore
from cove.models.hosts import SandboxSpec
from cove.models.identifiers import new_sandbox_id
from cove.models.limits import Limits

SMALL = Limits(memory_mb=128, disk_mb=64, pids=64)

async def execute(record, language, code):
    transport = httpx2.AsyncHTTPTransport(uds=record.socket_path, verify=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://agent", timeout=30) as client:
        return (await client.post("/execute", json={"language": language, "code": code})).json()

async def create(driver, template):
    spec = SandboxSpec(sandbox_id=new_sandbox_id(), template="base", limits=SMALL)
    return await driver.create(spec, template)

async def main(run_dir, data_dir):
    driver = NamespaceDriver(run_dir, cgroups=Cgroups(detect()), disks=None)
    facts = {"report": (await driver.check()).model_dump(mode="json")}
    records = []
    try:
        if facts["report"]["available"]:
            template = TemplateStore(data_dir, owner=None).get("base")
            as_root = template.model_copy(update={"run_as_root": True, "digest": template.digest[:-4] + "root"})
            records = [await create(driver, one) for one in (template, template, as_root)]
            facts["pids"] = [record.pid for record in records]
            look = "cd /workspace; id -u; grep Cap /proc/self/status; echo x > f && chown 1000 f && cat f"
            facts["said"] = [await execute(record, "bash", look) for record in records]
            greedy = await execute(records[0], "bash", "python3 -c 'x = bytearray(300 << 20)'; echo $?")
            facts["greedy"] = [greedy["stdout"], (await driver.usage(records[0])).oom_kills]
            await driver.pause(records[1])
            await driver.resume(records[1])
            facts["resumed"] = await execute(records[1], "python", "print(6 * 7)")
        print(json.dumps(facts), flush=True)
        await asyncio.to_thread(sys.stdin.readline)
    finally:
        for record in records:
            await driver.destroy(record)
        await driver.close()

asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
"""


CHECK = """
import asyncio, sys
from pathlib import Path
from cove.drivers.namespace.driver import NamespaceDriver
from cove.host.cgroups import Cgroups, Hierarchies

async def main():
    driver = NamespaceDriver(Path(sys.argv[1]), cgroups=Cgroups(Hierarchies({}, None, frozenset())), disks=None)
    report = await driver.check()
    await driver.close()
    print(report.available, *report.problems, *report.lost)

asyncio.run(main())
"""


class Scene(NamedTuple):
    """Sandboxes of the account, alive while the tests look at them: two ordinary ones and one with a root inside."""

    user: Account
    python: tuple[str, ...]
    run_dir: Path
    facts: dict[str, Any]

    def host_users(self) -> list[int]:
        return [os.stat(f"/proc/{pid}").st_uid for pid in self.facts["pids"]]


@pytest.fixture(scope="module")
def scene(built_data_dir: Path) -> Iterator[Scene]:
    with account() as user, short_directory() as directory:
        built_template(built_data_dir, "base")
        (directory / "run").mkdir()
        os.chown(directory / "run", user.uid, user.uid)
        python = ordinary_python(directory, user.uid)
        command = [*user.enter, *python, "-c", PROGRAM, str(directory / "run"), str(built_data_dir)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as process:
            try:
                assert process.stdout
                assert select.select([process.stdout], [], [], 60)[0], "it says something in time"
                facts = json.loads(process.stdout.readline() or "{}")
                if facts.get("report", {}).get("available") is False:
                    pytest.skip(f"ordinary users cannot start sandboxes here: {facts['report']['problems']}")
                yield Scene(user, python, directory / "run", facts)
            finally:
                process.communicate("\n", timeout=30)
        left = [str(path) for group in user.groups for path in group.glob("cove/*") if path.is_dir()]
        assert left == []


def test_each_sandbox_is_a_user_of_its_own(scene: Scene) -> None:
    one, other, root = scene.host_users()
    assert len({one, other, scene.user.uid}) == 3
    assert {one, other} <= set(scene.user.subordinate)
    assert root == scene.user.uid, "a root inside is the user, who owns the template"
    assert "without ids of their own" not in " ".join(scene.facts["report"]["lost"])


def test_programs_have_no_privileges_but_those_of_a_root_inside(scene: Scene) -> None:
    one, other, root = (said["stdout"].split() for said in scene.facts["said"])
    for said in (one, other):
        assert (said[0], said[-1]) == ("1000", "x")
        assert set(said[2::2][:5]) == {"0" * 16}
    assert (root[0], root[-1]) == ("0", "x")
    assert root[4] == root[6] == root[8] == "00000000000000fb"


def test_the_user_of_one_sandbox_cannot_signal_another(scene: Scene) -> None:
    """As if a process had left its namespaces, but not its user."""
    (one, other, _), (user, *_) = scene.facts["pids"], scene.host_users()
    code = "import os, sys; os.setgroups([]); os.setgid({0}); os.setuid({0}); os.kill({1}, 0); print('done')"

    def tried(pid: int) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code.format(user, pid)], capture_output=True, text=True, timeout=20, check=False
        )
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    assert "PermissionError" in tried(other)
    assert tried(one) == "done", "the control: its own first process"


def test_delegated_control_groups_limit_memory(scene: Scene) -> None:
    enforced = scene.facts["report"]["capabilities"]["limits"]
    if "memory_mb" not in enforced:
        pytest.skip(f"no memory controller can be delegated here: {scene.facts['report']['lost']}")
    assert {"memory_mb", "pids", "vcpu"} <= set(enforced)
    printed, kills = scene.facts["greedy"]
    assert (printed.strip(), kills) == ("137", 1)


def test_where_newuidmap_cannot_work_sandboxes_do_without(scene: Scene) -> None:
    """A hardened service has no_new_privs, for example: set-user-id programs have no effect then."""
    command = ["setpriv", "--no-new-privs", *scene.python, "-c", CHECK, str(scene.run_dir)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/", check=True)
    assert done.stdout.startswith("True "), done.stdout
    assert "no_new_privs" in done.stdout
    assert "without ids of their own" in done.stdout


def test_an_earlier_daemons_groups_are_found_again(scene: Scene) -> None:
    """In version 2 this one began in the leaf that an earlier one has moved it to."""
    moved = [(start, start.parent) for start in scene.user.start if start.name == "hostd"]
    if not moved:
        pytest.skip("no hierarchy of version 2 is mounted here")
    for start, group in moved:
        assert len(list((group / "cove").glob("kit-*"))) >= 3
        assert not (start / "cove").exists()


def test_delegated_control_groups_freeze(scene: Scene) -> None:
    assert scene.facts["report"]["capabilities"]["pause"]
    assert scene.facts["resumed"]["stdout"] == "42\n"
