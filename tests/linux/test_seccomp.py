"""The filter: what it lets through and what it refuses, tried in a real process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cove.linux.seccomp import compile_filter
from cove.linux.syscall_numbers import AARCH64, X86_64
from cove.linux.syscall_policy import CONDITIONAL, FAMILIES, REFUSED

ROOT = Path(__file__).parents[2]

ATTEMPTS = """
import ctypes, errno, fcntl, json, mmap, os, socket, subprocess, sys, threading
from cove.linux.privileges import forbid_new_privileges
from cove.linux.seccomp import compile_filter, install_filter
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if number == 56 and result == 0:
        os._exit(0)
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
def attempt(action):
    try:
        action()
    except OSError as problem:
        return errno.errorcode[problem.errno]
    return "ok"
def lingering():
    with socket.socket() as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, (1).to_bytes(4, "little") + (9).to_bytes(4, "little"))
        kept = tcp.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return f"{kept} {int.from_bytes(tcp.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)[:4], 'little')}"
def in_32_bits():
    # getpid by `int 0x80`, in a process of its own
    code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20; int 0x80; ret
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if function() == os.getpid() else 1)
    status = os.waitpid(pid, 0)[1]
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"
def on_terminal(request, argument):
    import pty
    ours, theirs = pty.openpty()
    return attempt(lambda: fcntl.ioctl(theirs, request, argument))
def filtering():
    with socket.socket() as tcp:
        program = ctypes.create_string_buffer((6).to_bytes(8, "little"))  # one instruction: return
        header = (1).to_bytes(8, "little") + ctypes.addressof(program).to_bytes(8, "little")
        tcp.setsockopt(socket.SOL_SOCKET, 26, header)
def tries():
    return {
        "line discipline": on_terminal(0x5423, (0).to_bytes(4, "little")),
        "console": on_terminal(0x541C, bytes(1)),
        "32 bits": in_32_bits(),
        "x32": call(0x40000000 + 39),
        "vmsplice": call(278, -1, None, 0, 0),
        "sctp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()),
        "mptcp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).close()),
        "ping": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, 1).close()),
        "old packet": attempt(lambda: socket.socket(socket.AF_INET, 10, 3).close()),
        "tipc pair": attempt(lambda: socket.socketpair(30, socket.SOCK_STREAM)),
        "socket filter": attempt(filtering),
        "tcp by name": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 6).close()),
        "udp by name": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, 17).close()),
        "clone": call(56, 0x10000000 | 17, 0, 0, 0, 0),
        "open_tree": call(428, -100, b"/", 1),
        "name_to_handle": call(303, -100, b"/", None, None, 0),
        "unshare": call(272, 0x10000000),
        "mount": call(165, b"none", b"/nowhere", b"tmpfs", 0, None),
        "bpf": call(321, 0, None, 0),
        "ptrace": call(101, 16, 999999, 0, 0),
        "io_uring_setup": call(425, 1, None),
        "userfaultfd": call(323, 1),
        "keyctl": call(250, 0, -1, 0),
        "perf_event_open": call(298, None, 0, -1, -1, 0),
        "clone3": call(435, None, 0),
        "unknown": call(2000),
        "vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM).close()),
        "packet": attempt(lambda: socket.socket(17, socket.SOCK_RAW).close()),
        "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()),
        "linger": lingering(),
        "tcp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()),
        "udp6": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).close()),
        "unix": attempt(lambda: socket.socketpair()[0].close()),
        "route": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()),
        "audit": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).close()),
        "process": attempt(lambda: subprocess.run(["true"], check=True)),
        "thread": attempt(lambda: (t := threading.Thread(target=int), t.start(), t.join())),
        "tiocsti": attempt(lambda: __import__("fcntl").ioctl(0, 0x5412, b"x")),
        "personality": call(135, 0x0040000),
    }
if sys.argv[1] == "filtered":
    forbid_new_privileges()
    install_filter(compile_filter())
print(json.dumps(tries()))
"""


def tried(mode: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS, mode], capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif("x86_64" not in sys.implementation._multiarch, reason="the attempts use x86_64 numbers")
def test_dangerous_calls_are_refused_and_ordinary_ones_work() -> None:
    refused = {
        "unshare": "EPERM",
        "mount": "EPERM",
        "bpf": "EPERM",
        "ptrace": "EPERM",
        "io_uring_setup": "EPERM",
        "userfaultfd": "EPERM",
        "keyctl": "EPERM",
        "perf_event_open": "EPERM",
        "clone3": "ENOSYS",
        "unknown": "ENOSYS",
        "vsock": "EAFNOSUPPORT",
        "packet": "EAFNOSUPPORT",
        "raw": "EPERM",
        "audit": "EAFNOSUPPORT",
        "tiocsti": "EPERM",
        "personality": "EPERM",
        "line discipline": "EPERM",
        "console": "EPERM",
        "32 bits": "signal 31",
        "x32": "ENOSYS",
        "vmsplice": "EPERM",
        "sctp": "EPROTONOSUPPORT",
        "mptcp": "EPROTONOSUPPORT",
        "ping": "EPROTONOSUPPORT",
        "old packet": "EPERM",
        "tipc pair": "EAFNOSUPPORT",
        "socket filter": "EPERM",
        "clone": "EPERM",
        "open_tree": "EPERM",
        "name_to_handle": "EPERM",
    }
    allowed = ("tcp", "udp6", "unix", "route", "process", "thread", "tcp by name", "udp by name")
    filtered = tried("filtered")
    assert {name: filtered[name] for name in refused} == refused
    assert {name: filtered[name] for name in allowed} == dict.fromkeys(allowed, "ok")
    assert filtered["linger"] == "1 0", "other options work, and this one is ignored without an error"


@pytest.mark.skipif("x86_64" not in sys.implementation._multiarch, reason="the attempts use x86_64 numbers")
def test_without_the_filter_the_answers_differ() -> None:
    """The control: what the filter refuses is answered otherwise, or works, without it."""
    control = tried("plain")
    assert control["personality"] == "ok"
    assert control["clone3"] == "EINVAL"
    assert control["line discipline"] == control["socket filter"] == "ok"
    assert control["vmsplice"] == "EBADF"
    assert "EPERM" not in (control["open_tree"], control["name_to_handle"]) or control["unshare"] != "ok"
    if control["32 bits"] != "exit 0":
        pytest.skip("this kernel has no 32 bit calls: there is no control for them")
    assert control["linger"] == "1 1"
    assert control["mount"] != "EPERM" or control["unshare"] == "ok"


def test_every_name_has_a_number_and_a_reason() -> None:
    names = {name for family in FAMILIES for name in family.calls} | CONDITIONAL.keys()
    assert names == X86_64.keys()
    assert AARCH64.keys() < names
    assert all(family.reason for family in FAMILIES)


def test_what_reaches_far_is_not_in_the_table() -> None:
    names = {name for family in FAMILIES for name in family.calls} | CONDITIONAL.keys()
    refused = {name for family in REFUSED for name in family.calls}
    far = "bpf mount umount2 pivot_root unshare setns ptrace keyctl add_key userfaultfd io_uring_setup kexec_load"
    far += " init_module finit_module open_by_handle_at perf_event_open process_vm_readv pidfd_getfd fsopen move_mount"
    assert names.isdisjoint(refused)
    assert refused >= set(far.split())


def test_the_document_is_that_of_the_table() -> None:
    command = [sys.executable, "tools/generate_seccomp_table.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_filter_exists_for_both_machines() -> None:
    assert len(compile_filter("x86_64")) % 8 == 0
    assert len(compile_filter("aarch64")) % 8 == 0
    with pytest.raises(OSError, match="no system call table"):
        compile_filter("mips")
