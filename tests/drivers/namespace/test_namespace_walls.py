"""What code in a namespace sandbox is, sees and may do, asked from inside; with controls on the host."""

import asyncio
import os
import socket
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import Inside, host_user
from tests.drivers.namespace.conftest import SECRET, Ground

from cove.drivers.namespace.forkserver.kernel_files import COVERED_DIRECTORIES, COVERED_FILES, READ_ONLY
from cove.host.identities import FIRST, TEMPLATE_OWNER

pytestmark = pytest.mark.anyio

_RANGE = 65536


async def status(inside: Inside, pid: str = "self") -> dict[str, str]:
    lines = (await inside.output(f"cat /proc/{pid}/status")).splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("pid", ["1", "self"])
async def test_no_privileges(inside: Inside, pid: str) -> None:
    facts = await status(inside, pid)
    assert {facts[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
    assert facts["Uid"].split() == facts["Gid"].split() == ["1000"] * 4
    assert facts["Groups"] in ("", "1000")


async def test_the_agent_is_the_first_process(inside: Inside) -> None:
    assert await inside.output("import os; print(os.getppid())", "python") == "1"
    assert "forkserver" in await inside.output("tr '\\0' ' ' < /proc/1/cmdline")
    assert inside.record.pid != 1


async def test_processes_of_the_host_are_not_there(inside: Inside) -> None:
    mine = os.getpid()
    assert Path(f"/proc/{mine}/cmdline").read_bytes()
    pids = [int(pid) for pid in (await inside.output("ls /proc | grep -E '^[0-9]+$'")).split()]
    assert mine not in pids
    assert len(pids) < 20
    assert await inside.output(f"kill -0 {mine} 2>/dev/null || echo none") == "none"
    assert "pytest" not in await inside.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


async def test_nothing_of_the_hosts_environment(inside: Inside, ground: Ground, host_variable: str) -> None:
    assert os.environ["COVE_TEST_SECRET"] == host_variable
    names = set((await inside.output("env | cut -d= -f1")).split())
    assert names <= {*ground.subject.template.environment, "PWD", "OLDPWD", "SHLVL", "_"}
    assert SECRET not in await inside.output("cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert SECRET not in await inside.output("import os; print(dict(os.environ))", "python")


async def test_only_standard_descriptors_are_inherited(inside: Inside) -> None:
    code = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    assert await inside.output(f'python3 -c "{code}"') == "[0, 1, 2, 3]"  # 3 is the listing itself
    targets = await inside.output("import os; print([os.readlink(f'/proc/self/fd/{n}') for n in (0, 1, 2)])", "python")
    assert "/dev/" in targets or "pipe:" in targets
    assert str(ground_directory(inside)) not in targets


def ground_directory(inside: Inside) -> Path:
    return Path(inside.record.socket_path).parent.parent


async def test_only_loopback_and_it_is_up(inside: Inside) -> None:
    code = """
import socket
print([name for _, name in socket.if_nameindex()])
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname(), timeout=5)
peer, _ = server.accept()
peer.sendall(b"hello")
print(client.recv(5).decode())
"""
    assert await inside.output(code, "python") == "['lo']\nhello"
    assert await inside.output("tail -n +2 /proc/net/route | wc -l") == "0"


async def test_services_of_the_host_cannot_be_reached(inside: Inside) -> None:
    seen: list[str] = []

    async def note(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("socket").family.name)
        writer.close()

    server = await asyncio.start_server(note, "127.0.0.1", 0)
    abstract = f"\0cove-test-{os.getpid()}"
    async with server, await asyncio.start_unix_server(note, abstract):
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        _, writer = await asyncio.open_unix_connection(abstract)
        writer.close()
        code = f"""
import socket
for family, address in ((socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ({host_address()!r}, {port})),
                        (socket.AF_UNIX, {abstract!r})):
    with socket.socket(family) as client:
        client.settimeout(5)
        try:
            client.connect(address)
            print("reached", address)
        except OSError as problem:
            print(problem.errno)
"""
        answers = (await inside.output(code, "python")).split("\n")
    assert answers == ["111", "101", "111"]  # refused by its own loopback, no route, nobody there
    assert sorted(seen) == ["AF_INET", "AF_UNIX"]  # the controls, and nobody else


def host_address() -> str:
    """An address of this machine that is not loopback, or one from a documentation range (RFC 5737)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "192.0.2.1"
        return str(probe.getsockname()[0])


async def test_raw_sockets_are_refused(inside: Inside) -> None:
    code = """
import socket
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW), (40, 1), (38, 5)):
    try:
        socket.socket(family, kind).close()
        print("made", family)
    except OSError:
        print("refused")
"""
    assert await inside.output(code, "python") == "\n".join(["refused"] * 4)


async def test_each_has_a_host_name_of_its_own(pair: tuple[Inside, Inside]) -> None:
    names = [await inside.output("hostname") for inside in pair]
    assert len({*names, socket.gethostname()}) == 3
    assert names[0] == f"sandbox-{pair[0].record.sandbox_id[-8:]}"


async def test_nothing_of_the_hosts_files(inside: Inside) -> None:
    directory = ground_directory(inside)
    (directory / "secret").write_text(SECRET)
    assert (directory / "secret").exists()
    assert await inside.output(f"cat {directory}/secret 2>/dev/null || echo none") == "none"
    places = "/home /root /var/lib/cove /tmp /run /sys /mnt /srv /opt"
    assert await inside.output(f"ls -A {places} 2>/dev/null | grep -v :") == "user"
    code = f"find / -xdev -name {directory.name} -not -path '/proc/*' 2>/dev/null"
    assert await inside.output(f"{code}; true") == ""


async def test_the_system_is_read_only_to_the_user_and_the_workspace_is_not(inside: Inside) -> None:
    code = """
for path in /usr/new /etc/new /bin/new /etc/hostname /usr/bin/env /dev/new; do
  if (echo x >> $path) 2>/dev/null; then echo "wrote $path"; fi
done
rm -rf /usr/bin/env 2>/dev/null
echo x > /workspace/new && echo x > /home/user/new && echo x > /tmp/new && test -x /usr/bin/env && echo fine
"""
    assert await inside.output(code) == "fine"


async def test_template_layers_do_not_change(pair: tuple[Inside, Inside], ground: Ground) -> None:
    first, second = pair
    changed = "find /home/user /workspace /tmp -type f | sort"
    before = await second.output(changed)
    await first.output("echo mine > /home/user/.profile; echo mine > /home/user/mark; rm -rf /home/user/.config")
    assert await second.output(changed) == before
    for layer in ground.subject.template.layers:
        assert not Path(layer, "home/user/mark").exists()


async def test_mounts_are_harmless(inside: Inside) -> None:
    mounts = [line.split() for line in (await inside.output("cat /proc/self/mountinfo")).splitlines()]
    covers = {f"/proc/{name}" for name in (*COVERED_FILES, *COVERED_DIRECTORIES, *READ_ONLY)}
    null = {f"/proc/{name}" for name in COVERED_FILES}
    for fields in mounts:
        assert "nosuid" in fields[5].split(","), fields
        assert "nodev" in fields[5].split(",") or fields[4] in {"/dev", "/dev/pts", *null}, fields
        assert "ro" in fields[5].split(",") or fields[4] not in covers - null, fields
    places = {fields[4] for fields in mounts}
    assert places - covers == {"/", "/dev", "/dev/pts", "/dev/shm", "/proc", "/proc/sys/kernel/random/boot_id"}
    assert len(places) == len(mounts)


async def test_proc_does_not_tell_about_the_machine(inside: Inside) -> None:
    names = [name for name in COVERED_FILES if Path("/proc", name).exists()]
    places = [*names, *(name for name in COVERED_DIRECTORIES if Path("/proc", name).is_dir())]
    code = "cd /proc; for f in %s; do [ -d $f ] && ls -A $f || head -c 100 $f; done 2>&1"
    assert await inside.output(code % " ".join(places)) == ""
    assert {"cmdline", "interrupts", "bus"} <= {*places}
    assert all(Path("/proc", name).read_bytes() for name in ("cmdline", "interrupts")), "the control"
    assert list(Path("/proc/bus").iterdir())
    assert "MemTotal" in await inside.output("cat /proc/meminfo"), "what programs need is there"


async def test_settings_of_the_machine_cannot_be_changed(inside: Inside) -> None:
    code = """
import os
for path in ("sys/kernel/ns_last_pid", "pressure/memory", "sys/kernel/core_pattern", "sysrq-trigger", "irq/0/smp"):
    try:
        os.close(os.open(f"/proc/{path}", os.O_WRONLY))
        print("open", path)
    except OSError as problem:
        print(problem.errno)
writable = [f"{top}/{name}" for place in ("/proc/sys", "/proc/pressure", "/proc/fs", "/proc/irq", "/proc/bus")
            for top, _, names in os.walk(place) for name in names if os.access(f"{top}/{name}", os.W_OK)]
print(writable)
"""
    answers = (await inside.output(code, "python")).split("\n")
    if Path("/proc/sysrq-trigger").exists():
        answers[3] = "2"  # covered by /dev/null: to write to it does nothing
    assert answers == ["30", "30", "13", "2", "2", "[]"]
    assert os.access("/proc/sys/kernel/ns_last_pid", os.W_OK), "the control"


async def test_each_has_names_of_its_own(pair: tuple[Inside, Inside]) -> None:
    files = ("/etc/hostname", "/etc/machine-id", "/proc/sys/kernel/random/boot_id")
    names = [(await inside.output(f"cat {' '.join(files)}")).split() for inside in pair]
    here = [Path(file).read_text().strip() if Path(file).exists() else "" for file in files]
    for first, second, host in zip(*names, here, strict=True):
        assert len({first, second, host, ""}) == 4
    assert all(len(machine) == 32 and int(machine, 16) for _, machine, _ in names)
    assert names[0][0] == await pair[0].output("hostname")
    lookup = "import socket; print(socket.gethostbyname(socket.gethostname()))"
    assert await pair[0].output(lookup, "python") == "127.0.0.1"


async def test_set_uid_programs_give_nothing(inside: Inside) -> None:
    code = "cp /usr/bin/id /workspace/id && chmod 6755 /workspace/id && /workspace/id -u && /workspace/id -g"
    assert await inside.output(code) == "1000\n1000"
    assert await inside.output("chown 0 /workspace/id 2>/dev/null || echo refused") == "refused"
    assert await inside.output("find / -xdev -perm /6000 -user 0 2>/dev/null; true") == ""


async def test_the_cgroup_namespace_hides_the_host(inside: Inside) -> None:
    assert {line.split(":")[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    lines = (await inside.output("cat /proc/self/cgroup")).splitlines()
    assert {line.split(":", 2)[2] for line in lines} == {"/"}
    assert await inside.output("ls /sys") == ""


async def test_the_agent_cannot_be_read_traced_or_killed(inside: Inside) -> None:
    code = """
import ctypes, os, signal
for path in ("/proc/1/mem", "/proc/1/environ", "/proc/1/maps"):
    try:
        with open(path, "rb") as file:
            file.read(1)
        print("read", path)
    except PermissionError:
        print("refused")
for name in ("fd", "ns", "cwd", "root"):
    try:
        os.listdir(f"/proc/1/{name}")
        print("listed", name)
    except PermissionError:
        print("refused")
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())  # PTRACE_ATTACH
os.kill(1, signal.SIGKILL)
os.kill(1, signal.SIGSTOP)
"""
    answer = (await inside.output(code, "python")).split("\n")
    assert answer == ["refused"] * 7 + ["-1 1"]
    assert await inside.health() == 200


async def test_new_namespaces_mounts_and_keys_are_refused(inside: Inside) -> None:
    code = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
calls = {
    "unshare": lambda: libc.unshare(0x10000000),
    "setns": lambda: libc.setns(0, 0),
    "mount": lambda: libc.mount(b"none", b"/tmp", b"tmpfs", 0, None),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "keyctl": lambda: libc.syscall(250, 0, -3, 0),
    "bpf": lambda: libc.syscall(321, 0, 0, 0),
    "io_uring": lambda: libc.syscall(425, 1, 0),
    "userfaultfd": lambda: libc.syscall(323, 0),
    "perf": lambda: libc.syscall(298, 0, 0, -1, -1, 0),
}
for name, call in calls.items():
    result = call()
    print(name, result, errno.errorcode.get(ctypes.get_errno()))
"""
    lines = (await inside.output(code, "python")).splitlines()
    assert [line for line in lines if not line.endswith("-1 EPERM")] == []
    assert len(lines) == 9


async def test_each_runs_as_a_host_user_of_its_own(pair: tuple[Inside, Inside]) -> None:
    users = [host_user(inside.record) for inside in pair]
    for user in users:
        assert user > TEMPLATE_OWNER + _RANGE
        assert (user - FIRST) % _RANGE == 1000
    assert users[0] // _RANGE != users[1] // _RANGE
    assert all(os.stat(f"/proc/{process.pid}").st_uid == users[0] for process in pair[0].processes())
