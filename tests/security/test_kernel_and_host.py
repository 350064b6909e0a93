"""The kernel and the host: calls that reach far, `/proc`, `/dev`, mounts, other processes, inherited things.

In a sandbox with a kernel of its own a call may work and reach that kernel only: there the host is what is looked at.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.running_server import until
from tests.security.attacks import attack
from tests.security.ground import HOST_SECRET, Ground, markers
from tests.security.programs import control, done, program

from cove.linux.clone import is_alive

pytestmark = pytest.mark.skipif(
    "x86_64" not in sys.implementation._multiarch, reason="the attempts use x86_64 call numbers"
)

FAR_CALLS = """
MS_PRIVATE = 0x44000
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))

def open_by_handle():
    mount_id = ctypes.c_int()
    call(303, -100, b"/usr", handle, ctypes.byref(mount_id), 0)  # name_to_handle_at
    root = os.open("/usr", os.O_RDONLY)
    os.close(call(304, root, handle, os.O_RDONLY))

def bpf_map():
    attributes = struct.pack("IIII", 2, 4, 8, 1) + bytes(112)  # BPF_MAP_CREATE, an array of one
    os.close(call(321, 0, attributes, len(attributes)))

def perf():
    attributes = struct.pack("IIQQQQQ", 1, 112, 0, 0, 0, 0, 1) + bytes(64)  # PERF_COUNT_SW_CPU_CLOCK
    os.close(call(298, attributes, 0, -1, -1, 0))

def io_uring():
    os.close(call(425, 1, ctypes.create_string_buffer(120)))

def join(kind):
    handle = os.open(f"/proc/{os.getppid()}/ns/{kind}", os.O_RDONLY)
    call(308, handle, 0)

attempt("user namespace", lambda: call(272, 0x10000000))
attempt("mount namespace", lambda: call(272, 0x00020000))
attempt("network namespace", lambda: call(272, 0x40000000))
attempt("join a namespace", lambda: join("uts"))
attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None))
attempt("bind", lambda: call(165, b"/usr", b"/tmp", None, 4096, None))
attempt("overlay", lambda: call(165, b"o", b"/tmp", b"overlay", 0, b"lowerdir=/usr:/etc"))
attempt("fsopen", lambda: call(430, b"tmpfs", 0))
attempt("open_tree", lambda: call(428, -100, b"/usr", 1))
attempt("chroot", lambda: os.chroot("/tmp"))
attempt("host name", lambda: socket.sethostname("cove-attack"))
attempt("open_by_handle_at", open_by_handle)
attempt("bpf", bpf_map)
attempt("perf", perf)
attempt("keyring", lambda: call(250, 1, b"cove-attack"))
attempt("add_key", lambda: call(248, b"user", b"cove-attack", b"x", 1, -1))
attempt("userfaultfd", lambda: call(323, 0))
attempt("io_uring", io_uring)
attempt("kernel messages", lambda: call(103, 10, None, 0))
attempt("priority", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10))
attempt("process accounting", lambda: call(163, None))
"""


@attack(
    "System calls that reach far: namespaces, mounts, handles, bpf, perf, keyrings, userfaultfd, io_uring, chroot",
    expected="refused; with a kernel of its own at most that one is reached",
    control="root in throwaway namespaces: nearly all of them work",
)
def test_system_calls_that_reach_far(ground: Ground) -> None:
    source = program(FAR_CALLS)
    unwalled = control(source, namespaces="-m -n -i -u -p -f")
    assert len(done(unwalled)) >= 15, unwalled
    if not ground.own_kernel:
        assert done(ground.attacker.attack(source)) == {}
        return
    reached = done(ground.attacker.attack(source))
    assert {"bpf", "perf", "io_uring", "userfaultfd", "open_by_handle_at", "process accounting"}.isdisjoint(reached)


@attack(
    "A broken kernel interface: what the host's kernel lets the sandbox's first process do",
    expected="a system call filter, no new privileges, a user, namespaces and a root of its own",
    control="the test's own process has none of these",
)
def test_what_stands_behind_the_first_wall(ground: Ground) -> None:
    record = ground.server.record(ground.attacker.sandbox_id)
    assert record
    first = record["pid"]
    assert is_alive(first, record["pid_started"])
    inside, here = _status(first), _status(os.getpid())
    assert (here["Seccomp"], here["Uid"].split()[1], _reached(here)) == ("0", "0", True)
    assert inside["Seccomp"] == "2", inside
    assert inside["Uid"].split()[1] != "0" or ground.own_kernel
    assert not _reached(inside) or _other(first, "user")
    for kind in ("mnt", "pid", "net", "ipc", "user"):
        assert _other(first, kind) or (ground.own_kernel and kind in ("pid", "user")), kind
    assert os.readlink(f"/proc/{first}/root") != "/" or _other(first, "mnt")
    below = Path(f"/proc/{first}/root")
    for secret in markers(ground.server)[:2]:
        assert not (below / str(secret).lstrip("/")).exists()


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _reached(status: dict[str, str]) -> bool:
    return int(status["CapEff"], 16) & (1 << 21) > 0  # CAP_SYS_ADMIN


def _other(pid: int, kind: str) -> bool:
    return os.readlink(f"/proc/{pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")


OPENED = """
for path in paths:
    attempt(path, lambda: os.close(os.open(path, os.O_WRONLY)))
"""
LINKED = """
def reopen(path):
    handle = os.open(path, os.O_PATH)
    os.close(os.open(f"/proc/self/fd/{handle}", os.O_WRONLY))
os.makedirs("/tmp/links", exist_ok=True)
for number, path in enumerate(paths):
    link = f"/tmp/links/{number}"
    if not os.path.islink(link):
        os.symlink(path, link)
    attempt("link to " + path, lambda: os.close(os.open(link, os.O_WRONLY)))
    attempt("descriptor of " + path, lambda: reopen(path))
def spared():
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-999")
attempt("oom score of its own", spared)
"""

PROC_PATHS = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/fs/file-max",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
]


@attack(
    "Writing kernel settings through /proc (core_pattern, sysrq-trigger, ...), also by a link and a bare descriptor",
    expected="refused, and the host's values are unchanged",
    control="root on the host opens all of them for writing (and writes nothing)",
)
def test_kernel_settings_in_proc(ground: Ground) -> None:
    paths = [path for path in PROC_PATHS if Path(path).exists()]
    assert len(paths) >= 7
    assert set(done(control(program(OPENED, paths=paths), namespaces=""))) == set(paths)
    reached = set(done(ground.attacker.attack(program(OPENED + LINKED, paths=paths))))
    assert reached <= ({"oom score of its own"} if ground.own_kernel else set[str]())


@attack(
    "Kernel memory, messages and addresses: kcore, kmem, kmsg, kallsyms, timer_list, slabinfo, page flags",
    expected="not there, or not readable; addresses are zero",
    control="root on the host reads messages and sees addresses",
)
def test_kernel_memory_and_addresses(ground: Ground) -> None:
    source = program("""
def addresses():
    with open("/proc/kallsyms") as file:
        found = [line for line in file if int(line.split()[0], 16)]
    if not found:
        raise PermissionError(errno.EPERM, "zero")
def readable(name):
    with open("/proc/" + name, "rb") as file:
        if not any(file.read(8)):
            raise PermissionError(errno.EPERM, "nothing in it")
attempt("addresses", addresses)
attempt("messages", lambda: os.close(os.open("/proc/kmsg", os.O_RDONLY | os.O_NONBLOCK)))
for name in ("kcore", "slabinfo", "timer_list", "kpageflags", "vmallocinfo", "self/pagemap"):
    attempt(name, lambda: readable(name))
for path in ("/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/port"):
    attempt(path, lambda: os.close(os.open(path, os.O_RDONLY)))
""")
    assert set(done(control(source, namespaces=""))) >= {"addresses", "messages", "slabinfo"}
    assert done(ground.attacker.attack(source)) == {}


@attack(
    "Device nodes: making disks and memory devices, opening /dev/console, tun, fuse, kvm, loop, disks",
    expected="no node can be made, none but the harmless ones is there",
    control="root in a throwaway mount namespace makes a node and reads from it",
)
def test_device_nodes(ground: Ground) -> None:
    made = """
def node(kind, major, minor):
    path = f"{place}/node-{major}-{minor}-{os.getpid()}"
    os.mknod(path, kind | 0o666, os.makedev(major, minor))
    handle = os.open(path, os.O_RDONLY)
    os.read(handle, 1)
attempt("zero", lambda: node(0o020000, 1, 5))
"""
    mounted = 'attempt("space", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, None))\n'
    unwalled = control(program(made, place="/var/tmp"), namespaces="-m")
    assert "zero" in done(unwalled), (unwalled, mounted)
    for leftover in Path("/var/tmp").glob("node-1-5-*"):
        leftover.unlink()
    source = program(
        made
        + """
attempt("disk", lambda: node(0o060000, 254, 0))
attempt("memory", lambda: node(0o020000, 1, 1))
for name in ("console", "net/tun", "fuse", "kvm", "loop-control", "loop0", "vda", "sda", "tty0", "vsock", "uinput"):
    attempt(name, lambda: os.close(os.open("/dev/" + name, os.O_RDWR)))
attempt("on /dev", lambda: open("/dev/new", "w"))
""",
        place="/workspace",
    )
    # A kernel of its own has devices of its own under some of the names.
    assert set(done(ground.attacker.attack(source))) <= ({"fuse", "net/tun"} if ground.own_kernel else set[str]())
    known = {
        "fd",
        "full",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    }
    assert set(ground.attacker.command("ls /dev")["stdout"].split()) <= known | {"fuse", "net", "pids"}


REMOUNT = """
MS_REMOUNT, MS_BIND = 32, 4096
def writable(point):
    for flags in (MS_REMOUNT, MS_REMOUNT | MS_BIND):
        if not libc.mount(None, point.encode(), None, flags, None):
            break
    attributes = struct.pack("QQQQ", 0, 1, 0, 0)  # mount_setattr: clear MOUNT_ATTR_RDONLY
    libc.syscall(442, -100, point.encode(), 0, attributes, 32)
    path = point.rstrip("/") + "/cove-attack"
    with open(path, "w") as file:
        file.write("x")
    os.unlink(path)
"""


@attack(
    "Remounting every read-only mount read-write from inside, then writing to it",
    expected="refused for every mount",
    control="root in a throwaway mount namespace does it with a mount of its own",
)
def test_read_only_mounts_stay_so(ground: Ground) -> None:
    own = """
def own():
    if libc.mount(b"none", b"/mnt", b"tmpfs", 1, None):
        raise OSError(ctypes.get_errno(), "mount")
    writable("/mnt")
attempt("own", own)
"""
    assert "own" in done(control(program(REMOUNT + own), namespaces="-m"))
    every = """
mounts = [line.split() for line in open("/proc/self/mounts")]
points = [fields[1] for fields in mounts if "ro" in fields[3].split(",")] + ["/usr", "/etc", "/proc/sys"]
for point in points:
    attempt(point, lambda: writable(point))
"""
    assert done(ground.attacker.attack(program(REMOUNT + every))) == {}


@attack(
    "Finding other processes: a marked program of the host, the victim's, Cove's own",
    expected="none is there, by /proc or by signal",
    control="the same search on the host finds the marked program",
)
def test_processes_of_others(ground: Ground) -> None:
    source = program(
        """
def search():
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                line = open(f"/proc/{entry}/cmdline").read()
            except OSError:
                continue
            if mark in line and "print(json" not in line:
                found.append(entry)
    if not found:
        raise OSError(errno.ESRCH, "none")
    return found
attempt("search", search)
attempt("signal", lambda: os.kill(pid, 0))
""",
        mark="1000.734951",
        pid=os.getpid() + 1_000_000,
    )
    with subprocess.Popen(["sleep", "1000.734951"]) as sleeper:
        try:
            source = source.replace(str(os.getpid() + 1_000_000), str(sleeper.pid))
            assert set(done(control(source, namespaces=""))) == {"search", "signal"}
            assert "search" not in done(ground.attacker.attack(source))
            names = ground.attacker.command("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")["stdout"]
            assert "hostd" not in names
            assert "runsc" not in names
            assert sleeper.poll() is None
        finally:
            sleeper.kill()


TAKE_OVER = """
def memory():
    with open(f"/proc/{pid}/mem", "rb") as file:
        line = next(line for line in open(f"/proc/{pid}/maps") if "rw-p" in line)
        file.seek(int(line.split("-")[0], 16))
        file.read(8)
def read_across():
    line = next(line for line in open(f"/proc/{pid}/maps") if "rw-p" in line)
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("QQ", ctypes.addressof(buffer), 8)
    remote = struct.pack("QQ", int(line.split("-")[0], 16), 8)
    call(310, pid, local, 1, remote, 1, 0)
def descriptor():
    handle = os.pidfd_open(pid)
    os.close(call(438, handle, 0, 0))
attempt("memory", memory)
attempt("process_vm_readv", read_across)
attempt("pidfd_getfd", descriptor)
attempt("descriptors", lambda: [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")])
attempt("environment", lambda: open(f"/proc/{pid}/environ").read())
attempt("ptrace", lambda: libc.ptrace(0x4206, pid, 0, 0) and call(101, 16, pid, 0, 0))
"""


@attack(
    "Taking over the agent: its memory, descriptors, environment, tracing it, killing it, its listening socket",
    expected="refused; it goes on answering, and no other program answers in its place",
    control="root on the host does all of it to a process of its own",
)
def test_the_agent_cannot_be_taken_over(ground: Ground) -> None:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        try:
            assert set(done(control(program(TAKE_OVER, pid=sleeper.pid), namespaces=""))) == {
                "memory",
                "process_vm_readv",
                "pidfd_getfd",
                "descriptors",
                "environment",
                "ptrace",
            }
        finally:
            sleeper.kill()
    attacker = ground.attacker
    # gVisor shows what a process has open and was started with to its own user also when it is not dumpable.
    reached = set(done(attacker.attack(program(TAKE_OVER, pid=1))))
    assert reached <= ({"descriptors", "environment"} if ground.own_kernel else set[str]())
    _signals_from_inside(ground)
    fake = """
import http.server, os, sys
class Fake(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"fake")
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("0.0.0.0", 7777), Fake)
print("serving", flush=True)
if os.fork():
    os._exit(0)
os.setsid()
server.serve_forever()
"""
    attacker.write("/tmp/fake.py", fake)
    wait = "for _ in $(seq 200); do grep -q serving /tmp/fake.log && break; sleep 0.1; done; cat /tmp/fake.log"
    started = attacker.command(f"timeout 60 python3 /tmp/fake.py > /tmp/fake.log 2>&1 & {wait}")
    assert "serving" in started["stdout"]
    info = attacker.http.get("/info")
    assert info.json()["vm_id"] == attacker.sandbox_id
    assert b"fake" not in attacker.http.get("/ports/7777/health").content
    assert attacker.execute("print('answers')")["stdout"] == "answers\n"


def _signals_from_inside(ground: Ground) -> None:
    """gVisor's first process can be ended by its own sandbox: then all of that sandbox has ended, and nothing else."""
    doomed = ground.make() if ground.own_kernel else ground.attacker
    body = {"command": "for name in STOP HUP USR1 INT TERM SEGV KILL; do kill -$name 1; done", "timeout": 10}
    assert doomed.http.post("/commands/run", json=body).status_code in (
        (200, 404, 502) if ground.own_kernel else (200,)
    )
    if ground.own_kernel:
        doomed.kill()
        until(lambda: ground.server.record(doomed.sandbox_id) is None, seconds=60, what="it is gone")


@attack(
    "A working directory outside of the root: /proc/self/fd/N, /proc/1/root, /proc/1/cwd, dots, a link",
    expected="refused, or a directory of the sandbox",
    control="a process in a chroot that has kept a descriptor reaches the host's file this way",
)
def test_working_directories_that_lead_out(ground: Ground) -> None:
    marker = markers(ground.server)[0]
    kept = """
handle = os.open(directory, os.O_RDONLY)
def leak():
    os.makedirs("/mnt/proc", exist_ok=True) if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None) == 0 else None
    os.makedirs("/mnt/proc", exist_ok=True)
    libc.mount(b"/proc", b"/mnt/proc", None, 4096, None)
    os.chroot("/mnt")
    os.chdir(f"/proc/self/fd/{handle}")
    return open(name).read()
attempt("leak", leak)
"""
    assert done(control(program(kept, directory=str(marker.parent), name=marker.name), namespaces="-m")) == {
        "leak": HOST_SECRET
    }
    attacker = ground.attacker
    attacker.command("ln -sfn /proc/1/cwd /tmp/lead; ln -sfn /proc/self/fd/9 /tmp/lead9")
    places = [f"/proc/self/fd/{number}" for number in range(3, 24)]
    places += ["/proc/1/root", "/proc/1/cwd", "/proc/self/cwd/../../..", "/tmp/lead", "/tmp/lead9", "/../../.."]
    look = (
        f"cat {marker.name} .{marker} ../{marker.name} ../../../{marker.name} ../../../..{marker} 2>/dev/null; pwd -P"
    )
    for place in places:
        for path, body in (
            ("/commands/run", {"command": look, "timeout": 10, "workdir": place}),
            ("/execute", {"code": look, "language": "bash", "timeout": 10, "working_dir": place}),
        ):
            answer = attacker.http.post(path, json=body)
            assert HOST_SECRET not in answer.text, (place, path)
            assert answer.status_code in (200, 400, 403, 404), answer.text


@attack(
    "What is inherited: descriptors, the environment of server and host daemon",
    expected="three standard descriptors; nothing of the host's environment",
    control="the secret is in the environment of the server's process",
)
def test_nothing_is_inherited(ground: Ground) -> None:
    assert HOST_SECRET in Path(f"/proc/{ground.server.process.pid}/environ").read_text()
    attacker = ground.attacker
    source = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    listed = json.loads(attacker.command(f'python3 -c "{source}"')["stdout"])
    assert listed == [0, 1, 2, 3]  # 3 is the listing itself
    said = attacker.command("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")["stdout"]
    said += attacker.execute("import os; print(dict(os.environ))")["stdout"]
    assert HOST_SECRET not in said
    assert "COVE_" not in said
    assert str(ground.server.data_dir) not in said


@attack(
    "Sockets of the host: its daemon's, the control plane's, agents', abstract ones",
    expected="none is there",
    control="the host connects to all of them by the same names",
)
def test_sockets_of_the_host(ground: Ground) -> None:
    paths = [str(path) for path in ground.server.data_dir.rglob("*.sock")]
    assert len(paths) >= 3
    source = """
def connect(address):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(address)
for path in paths:
    attempt(path, lambda: connect(path))
attempt("abstract", lambda: connect(chr(0) + abstract))
"""
    name = f"cove-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{name}")
        listener.listen()
        attempts = program(source, paths=paths, abstract=name)
        assert len(done(control(attempts, namespaces=""))) >= 4
        assert done(ground.attacker.attack(attempts)) == {}
    found = ground.attacker.command("find / -xdev -type s -not -path '/proc/*' 2>/dev/null; true")["stdout"].split()
    assert [path for path in found if not path.startswith(("/tmp/", "/workspace/", "/home/user/"))] == []


@attack(
    "Set-user-id and file capabilities: a program made root's, one with capabilities, the system's own",
    expected="nobody becomes root; no such program is there",
    control="a program that root made set-user-id in a throwaway mount makes `nobody` root",
)
def test_set_user_id_and_file_capabilities(ground: Ground) -> None:
    unwalled = """
def become():
    if libc.mount(b"none", b"/mnt", b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), "mount")
    os.chmod("/mnt", 0o755)
    import shutil, subprocess
    shutil.copy("/usr/bin/id", "/mnt/id")
    os.chmod("/mnt/id", 0o4755)
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    return subprocess.run(["/mnt/id", "-u"], capture_output=True, text=True).stdout.strip()
attempt("become", become)
"""
    assert done(control(program(unwalled), namespaces="-m")) == {"become": "0"}
    source = """
import shutil, subprocess
for name in ("id", "id-caps"):
    shutil.copy("/usr/bin/id", "/workspace/" + name)
os.chmod("/workspace/id", 0o6755)
def as_root():
    if (user := subprocess.run(["/workspace/id", "-u"], capture_output=True, text=True).stdout.strip()) != "0":
        raise PermissionError(errno.EPERM, user)
attempt("chown", lambda: os.chown("/workspace/id", 0, 0))
attempt("chgrp", lambda: os.chown("/workspace/id", -1, 0))
attempt("run", as_root)
caps = struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0)
attempt("capabilities", lambda: os.setxattr("/workspace/id-caps", "security.capability", caps))
attempt("setuid", lambda: os.setuid(0))
attempt("setgid", lambda: os.setgid(0))
attempt("groups", lambda: os.setgroups([0]))
"""
    assert done(ground.attacker.attack(program(source))) == {}
    found = ground.attacker.command("find / -xdev -perm /6000 -not -user user 2>/dev/null; true")["stdout"]
    assert found == ""


@attack(
    "Control of cgroups: release_agent, cgroup.procs, limits, notify_on_release, mounting the hierarchy",
    expected="no such file can be written, none can be mounted",
    control="the host finds and may write them",
)
def test_cgroups_cannot_be_changed(ground: Ground) -> None:
    source = """
def find():
    found = []
    for top in ("/sys", "/dev", "/proc/self", "/tmp", "/mnt"):
        for directory, _, names in os.walk(top):
            wanted = {"release_agent", "cgroup.procs", "notify_on_release", "pids.max"}.intersection(names)
            found += [f"{directory}/{name}" for name in wanted]
            if len(found) > 200:
                break
    if not (found := [path for path in found if os.access(path, os.W_OK)]):
        raise OSError(errno.ENOENT, "none")
    return found[:3]
attempt("find", find, seconds=20)
"""
    mounting = """
attempt("cgroup", lambda: call(165, b"none", b"/tmp", b"cgroup", 0, b"none,name=cove-test"))
attempt("cgroup2", lambda: call(165, b"none", b"/tmp", b"cgroup2", 0, None))
"""
    assert "find" in done(control(program(source), namespaces=""))
    assert done(ground.attacker.attack(program(source + mounting))) == {}


@attack(
    "Learning which host this is: its name, its machine id",
    expected="names of the sandbox's own",
    control="the host has both, and they differ",
)
def test_the_host_is_not_named(ground: Ground) -> None:
    machine = Path("/etc/machine-id").read_text().strip()
    assert machine
    said = ground.attacker.command("hostname; cat /etc/hostname /etc/machine-id /etc/hosts 2>/dev/null; true")["stdout"]
    assert socket.gethostname() not in said.split()
    assert machine not in said
    other = ground.victim.command("hostname")["stdout"]
    assert other.strip() not in said.split()


@attack(
    "Leaving the language: subclasses of object, tracebacks, format strings lead to the whole of `os`",
    expected="it works, and finds the same walls as any other program",
    control="it works: a language is no wall here",
)
def test_the_language_is_no_wall(ground: Ground) -> None:
    code = f"""
found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "_wrap_close"]
system = found[0].__init__.__globals__
try:
    1 / 0
except Exception as problem:
    frame = problem.__traceback__.tb_frame
print(system["getuid"](), frame.f_builtins["open"]("/etc/passwd").readline().strip())
for path in ("{markers(ground.server)[0]}", "/etc/shadow", "/dev/mem"):
    try:
        frame.f_builtins["open"](path).read()
        print("read", path)
    except OSError as problem:
        print("refused")
"""
    assert ground.attacker.execute(code)["stdout"].split("\n")[:-1] == [
        "1000 root:x:0:0:root:/root:/bin/bash",
        *["refused"] * 3,
    ]
