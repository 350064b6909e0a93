"""Limits of a namespace sandbox: each is hit for real, from inside, is named in the result, and the agent lives on."""

import time
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import SMALL, Inside
from tests.drivers.namespace.conftest import Ground, Maker

from cove.models.limits import MIB, Limits

pytestmark = pytest.mark.anyio

LIMITS = Limits(vcpu=1, memory_mb=192, disk_mb=64, pids=64, open_files=128)


async def test_the_disk_is_full_at_its_size(ground: Ground, make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    filled = await inside.run("cat /dev/zero > /workspace/big; stat -c %s /workspace/big")
    assert "No space left on device" in filled["stderr"]
    assert filled["limit"] is None, "the program as a whole has succeeded"
    assert 40 * MIB < int(filled["stdout"]) <= LIMITS.disk_mb * MIB
    assert ((await ground.driver.usage(inside.record)).disk_bytes or 0) <= LIMITS.disk_mb * MIB
    for place in ("/tmp", "/home/user"):
        refused = await inside.run(f"head -c {MIB} /dev/zero > {place}/more")
        assert refused["exit_code"] != 0
        assert refused["limit"] == "disk 64 MiB"
        assert refused["stderr"].endswith("stopped by the limit: disk 64 MiB\n")
    assert (await inside.run("1 / 0", "python"))["limit"] is None, "a full disk explains only what it ended"
    assert await inside.output("rm /workspace/big; echo x > /workspace/more; cat /workspace/more") == "x"


async def test_shared_memory_is_bounded(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    filled = await inside.run("dd if=/dev/zero of=/dev/shm/big bs=1M count=200")
    assert "No space left on device" in filled["stderr"]
    assert filled["limit"] == "shared memory 64 MiB"


async def test_too_much_memory_ends_the_program_not_the_agent(ground: Ground, make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    await inside.output("kept = 1", "python")
    result = await inside.run('python3 -c "x = bytearray(500_000_000)"')
    assert (result["exit_code"], result["limit"]) == (137, "memory 192 MiB")
    child = await inside.run('python3 -c "x = bytearray(500_000_000)"; exit 3')
    assert (child["exit_code"], child["limit"]) == (3, "memory 192 MiB")
    assert (await inside.run("kill -9 $$"))["limit"] is None, "not every SIGKILL is the kernel's"
    assert (await ground.driver.usage(inside.record)).oom_kills >= 1
    assert await inside.output("print(kept)", "python") == "1"
    control = await inside.output('python3 -c "x = bytearray(50_000_000); print(len(x))"')
    assert control == "50000000"


async def test_an_interpreter_that_takes_too_much_memory_is_replaced(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    result = await inside.run("x = bytearray(500_000_000)", "python")
    assert (result["exit_code"], result["kernel_restarted"], result["limit"]) == (137, True, "memory 192 MiB")
    assert "variables and imports are gone" in result["stderr"]
    assert await inside.output("print(2)", "python") == "2"
    assert await inside.health() == 200


HOGS = """
import os, time
for _ in range(40):
    if not os.fork():
        kept = bytearray()
        while True:
            kept += b"x" * (1 << 20)
            time.sleep(0.001)
time.sleep(60)
"""


async def test_many_that_take_too_much_memory_together(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    await inside.output("kept = 1", "python")
    began = time.monotonic()
    result = await inside.run(f"python3 -c '{HOGS}'", timeout=4)
    assert time.monotonic() - began < 15
    assert result["limit"] == "memory 192 MiB"
    assert await inside.output("echo fine") == "fine"
    assert await inside.output("print(kept)", "python") == "1"


async def test_what_a_program_without_memory_leaves_is_ended(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    left = "import os, time\nif not os.fork(): time.sleep(600)\nx = bytearray(500_000_000)"
    result = await inside.run(f"python3 -c '{left}'")
    assert (result["exit_code"], result["limit"]) == (137, "memory 192 MiB")
    assert "sleep" not in await inside.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -v grep || true")
    kept = "import os, time\nif not os.fork(): time.sleep(600)"
    await inside.output(f"python3 -c '{kept}' </dev/null >/dev/null 2>&1")
    assert "sleep" in await inside.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), "control: otherwise it stays"


async def test_a_fork_bomb_is_contained(ground: Ground, make: Maker) -> None:
    bombed, other = Inside(await make(LIMITS)), Inside(await make(SMALL))
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    result = await bombed.run(f'python3 -c "{bomb}"', timeout=1)
    assert result["timed_out"]
    assert (await ground.driver.usage(bombed.record)).pids <= LIMITS.pids
    assert await other.output("echo fine") == "fine"
    assert await bombed.output("echo fine") == "fine"
    assert len(bombed.processes()) < 10


async def test_refused_threads_are_named(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    many = "import threading, time\nfor _ in range(200): threading.Thread(target=time.sleep, args=(9,)).start()"
    assert (await inside.run(f"python3 -c '{many}'"))["limit"] == "pids 64"


async def test_descriptors_are_bounded(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    many = "import os; kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(200)]"
    for _ in range(2):  # an interpreter without a free descriptor goes on all the same
        result = await inside.run(many, "python")
        assert (result["limit"], result["kernel_restarted"]) == ("open files 128", False)
    assert await inside.output("ulimit -n; ulimit -Hn; ulimit -c") == "128\n128\n0"
    assert await inside.output("ulimit -n 4096 2>/dev/null || echo refused") == "refused"


async def test_the_processor_quota_is_in_force(make: Maker) -> None:
    record = await make(LIMITS)
    quotas: list[str] = []
    for group in record.driver_state["groups"].splitlines():
        for name in ("cpu.cfs_quota_us", "cpu.max"):
            if Path(group, name).exists():
                quotas += Path(group, name).read_text().split()[:1]
    assert quotas == ["100000"]


async def test_every_process_is_in_the_cgroups(make: Maker) -> None:
    inside = Inside(await make(LIMITS))
    await inside.output("setsid -f sleep 1000 </dev/null >/dev/null 2>&1")
    names = [Path(group).name for group in inside.record.driver_state["groups"].splitlines()]
    for process in inside.processes():
        membership = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
        assert sum(line.endswith(f"/{names[0]}") for line in membership) == len(names)
