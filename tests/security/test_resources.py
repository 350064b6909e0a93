"""Floods: of processes, memory, files, descriptors, output. They end where the limit is, and others go on."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from tests.security.attacks import attack
from tests.security.ground import Ground, Inside, resident_bytes

MIB = 1024 * 1024
VICTIM_SECONDS = 10.0
"""Bound of one answer of the victim while the attack goes on; how slow it really gets is for `make bench`."""

FLOODS = {
    # These end by themselves: without that, what is left of them and the kernel's search for memory keep each other
    # busy for minutes where the machine is busy too.
    "processes": """
end = time.monotonic() + 2
while time.monotonic() < end:
    if not os.fork():
        kept = b"x" * (1 << 20)
        time.sleep(2)
        os._exit(0)
sys.exit(1)
""",
    "threads": """
for _ in range(20000):
    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
""",
    "memory": """
kept = []
while True:
    kept.append(b"x" * (8 << 20))
""",
    "shared memory": """
with open("/dev/shm/flood", "wb") as file:
    while True:
        file.write(b"x" * (1 << 20))
""",
    "disk": """
with open("/workspace/flood", "wb", buffering=0) as file:
    while True:
        file.write(b"x" * (1 << 20))
""",
    "inodes": """
for number in range(10**7):
    open(f"/workspace/inode-{number}", "w").close()
""",
    "descriptors": "kept = [os.open('/dev/null', os.O_RDONLY) for _ in range(10**6)]",
    "sockets": "kept = [socket.socketpair() for _ in range(10**6)]",
    "processor": """
end = time.monotonic() + 1
while time.monotonic() < end:
    pass
""",
    "message queues": """
if min(libc.msgget(0, 0o1666) for _ in range(40000)) < 0:
    raise OSError(28, "full")
""",
}


NAMED = {
    "processes": ("pids 512", "memory 256 MiB"),
    "threads": ("pids 512",),
    "memory": ("memory 256 MiB",),
    "shared memory": ("shared memory 64 MiB",),
    "disk": ("disk 64 MiB",),
    "inodes": ("inodes",),
    "descriptors": ("open files 4096",),
    "sockets": ("open files 4096",),
}
"""What results say of each flood, where the host's kernel is the sandbox's too; which limit comes first may vary."""


class Watch:
    """Asks the victim again and again, and remembers its slowest answer."""

    def __init__(self, victim: Inside) -> None:
        self._victim = victim
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.slowest = 0.0
        self.answers = 0

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _ask(self) -> None:
        stopping = False
        while not stopping:
            began = time.monotonic()
            if self._victim.execute("print(6 * 7)")["stdout"] == "42\n":
                self.answers += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            stopping = self._stop.wait(0.02)


@pytest.fixture(scope="module")
def small(shared_ground: Ground) -> Iterator[list[Inside]]:
    """One small sandbox for all floods, made again when a flood has ended it."""
    made: list[Inside] = []
    yield made
    for one in made:
        one.kill()


def standing(ground: Ground, made: list[Inside]) -> Inside:
    if made:
        answer = made[-1].http.get("/ping")
        if answer.status_code == 200:
            return made[-1]
    for one in made:
        one.kill()
    made[:] = [ground.make(resources={"vcpu": 1, "memory_mb": 256, "disk_mb": 64})]
    return made[-1]


@attack(
    "Floods of processes, threads, memory, shared memory, disk, inodes, descriptors, sockets, processor, queues",
    expected="end at the sandbox's limit, which the answer names; the victim answers meanwhile; server and host daemon"
    " keep their memory",
    control="each flood is without end: that it ends is the limit",
)
@pytest.mark.parametrize("kind", FLOODS)
def test_floods_end_at_the_limit(ground: Ground, small: list[Inside], kind: str) -> None:
    sandbox = standing(ground, small)
    daemon = ground.server.host_daemon()
    assert daemon
    before = [resident_bytes(pid) for pid in (ground.server.pid, daemon.pid)]
    source = f"import ctypes, os, socket, sys, threading, time\nlibc = ctypes.CDLL(None)\n{FLOODS[kind]}\n"
    sandbox.write("/tmp/flood.py", source)
    with Watch(ground.victim) as watch:
        try:
            answer = sandbox.http.post("/commands/run", json={"command": "python3 /tmp/flood.py", "timeout": 4})
        except httpx2.HTTPError:
            answer = None  # the sandbox as a whole has ended, and its connection with it
    assert watch.answers > 0
    assert watch.slowest < VICTIM_SECONDS
    if answer is not None and answer.status_code == 200:
        result = answer.json()
        assert kind == "processor" or result["exit_code"] != 0 or result["timed_out"], result
        if kind in NAMED and not ground.own_kernel:
            assert (result["limit"] or "").startswith(NAMED[kind]), result
    elif answer is not None:
        assert answer.status_code == 410, answer.text
        told = answer.json()
        assert (told["code"], told["details"]) == ("SANDBOX_DIED", {"reason": "memory 256 MiB"})
    after = [resident_bytes(pid) for pid in (ground.server.pid, daemon.pid)]
    assert max(new - old for new, old in zip(after, before, strict=True)) < 32 * MIB
    recovered = standing(ground, small)
    if not ground.own_kernel:
        assert recovered is sandbox, "a flood of one program does not end the sandbox"
    clean = "rm -rf /workspace/* /dev/shm/*; find /workspace -name 'inode-*' -delete"
    if ground.own_kernel and not answers(recovered, clean):
        recovered = standing(ground, small)  # it has died of the flood's memory only now, and said so
    recovered.command(clean)
    assert recovered.command("echo alive")["stdout"] == "alive\n"


def answers(sandbox: Inside, command: str) -> bool:
    """Whether it still does; if not, because its memory was used up."""
    try:
        answer = sandbox.http.post("/commands/run", json={"command": command, "timeout": 30})
    except httpx2.HTTPError:
        return False
    assert answer.status_code == 200 or "memory 256 MiB" in answer.text, answer.text
    return answer.status_code == 200


OUTPUTS = {
    "one huge line": "sys.stdout.write('x' * (1 << 20))",
    "binary": "sys.stdout.buffer.write(bytes(range(256)) * 4096)",
    "many lines": "print('x\\n' * (1 << 19))",
    "errors": "sys.stderr.write('e' * (1 << 20))",
}


@attack(
    "Floods of output: one huge line, binary, many lines, errors",
    expected="cut off and marked; the server does not grow",
    control="the programs print 64 MiB each",
)
def test_floods_of_output(ground: Ground, small: list[Inside]) -> None:
    while small:  # what the other floods have used up of its memory is no matter here
        small.pop().kill()
    sandbox = standing(ground, small)
    for kind, source in OUTPUTS.items():
        before = resident_bytes(ground.server.pid)
        sandbox.write("/tmp/flood.py", f"import sys\nfor _ in range(64):\n    {source}\n")
        result = sandbox.command("python3 /tmp/flood.py", timeout=20)
        assert result["stdout_truncated"] or result["stderr_truncated"], (
            kind,
            {**result, "stdout": len(result["stdout"])},
        )
        assert len(result["stdout"]) + len(result["stderr"]) < 16 * MIB, kind
        assert resident_bytes(ground.server.pid) - before < 48 * MIB, kind
        sandbox.command("rm -rf /tmp/*")


@attack(
    "A giant value, a giant picture, a value whose `repr` never ends or lies about its type",
    expected="a bounded answer",
    control="the values are a hundred megabytes",
)
def test_giant_values(ground: Ground) -> None:
    for code in (
        "'x' * (100 << 20)",
        "class Liar:\n    def __repr__(self):\n        return 'x' * (50 << 20)\nLiar()",
        "class Odd:\n    def __repr__(self):\n        return 7\nOdd()",
        "class Rich:\n    def _repr_png_(self):\n        return b'x' * (50 << 20)\nRich()",
        "class Rude:\n    def _repr_html_(self):\n        raise SystemExit\nRude()",
    ):
        before = resident_bytes(ground.server.pid)
        answer = ground.attacker.http.post("/execute", json={"code": code, "language": "python", "timeout": 20})
        assert answer.status_code == 200, answer.text[:500]
        assert len(answer.content) < 64 * MIB
        assert resident_bytes(ground.server.pid) - before < 96 * MIB
    assert ground.attacker.execute("print('alive')")["stdout"] == "alive\n"


STUBBORN = {
    "ignores signals": "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: time.sleep(1)",
    "double fork": "if not os.fork():\n    os.setsid()\n    os.fork() and os._exit(0)\nwhile True: time.sleep(1)",
    "forks as it dies": """
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: os.fork())
while True:
    time.sleep(1)
""",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "exit at once": "os._exit(3)",
}


@attack(
    "Programs that will not end: all signals blocked, double fork with setsid, forks when told to end, crashes",
    expected="none of their processes is left after the timeout",
    control="while it runs, the program is in the list of processes",
)
@pytest.mark.parametrize("kind", STUBBORN)
def test_programs_that_will_not_end(ground: Ground, kind: str) -> None:
    attacker = ground.attacker
    name = f"/tmp/stubborn-{kind.replace(' ', '-')}.py"
    attacker.write(name, f"import os, signal, sys, time\n{STUBBORN[kind]}\n")
    began = time.monotonic()
    result = attacker.command(f"python3 {name}", timeout=1)
    assert time.monotonic() - began < 15
    assert result["timed_out"] or result["exit_code"] != 0
    look = f"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c 'python3 {name}'; true"
    assert int(attacker.command(look.replace("stubborn", "[s]tubborn"))["stdout"]) == 0


@attack(
    "Breaking the interpreter that is kept: exits, a segfault, closed descriptors, replaced stdout, recursion, input()",
    expected="the call fails, the next one works",
    control="the interpreter that was broken has lost its variables, or says why it failed",
)
def test_breaking_the_interpreter(ground: Ground) -> None:
    attacker = ground.attacker
    for code in (
        "exit()",
        "import os; os._exit(5)",
        "import ctypes; ctypes.string_at(0)",
        "import os; os.closerange(0, 1000)",
        "import sys; sys.stdout = sys.stderr = sys.stdin = None",
        "import sys; sys.stdout.close()",
        "import sys; sys.setrecursionlimit(10**9); f = lambda: f(); f()",
        "input()",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import threading; threading.Thread(target=lambda: __import__('os')._exit(1)).start()",
    ):
        answer = attacker.http.post("/execute", json={"code": code, "language": "python", "timeout": 10})
        assert answer.status_code == 200, (code, answer.text)
    last: dict[str, Any] = {}
    for _ in range(3):
        last = attacker.execute("import sys; sys.__stdout__.write('alive\\n')", timeout=10)
        if "alive" in last["stdout"]:
            return
    raise AssertionError(last)


@attack(
    "Holding the server's connections: a hundred slow readers of one flood, requests that never end",
    expected="the victim answers meanwhile; the server's memory is bounded",
    control="all of the connections are open at the same time",
)
def test_slow_readers(ground: Ground) -> None:
    before = resident_bytes(ground.server.pid)
    attacker = ground.attacker
    attacker.command("head -c 60000000 /dev/zero > /tmp/long")
    streams: list[httpx2.Client] = []
    try:
        for _ in range(60):
            client = httpx2.Client(base_url=attacker.http.base_url, timeout=20, trust_env=False, verify=False)
            streams.append(client)
            headers = {"Authorization": f"Bearer {attacker.token}"}
            request = client.build_request("GET", "/files/download", params={"path": "/tmp/long"}, headers=headers)
            assert client.send(request, stream=True).status_code == 200
        with Watch(ground.victim) as watch:
            assert ground.victim.command("echo fine")["stdout"] == "fine\n"
        assert watch.slowest < VICTIM_SECONDS
        assert resident_bytes(ground.server.pid) - before < 96 * MIB
    finally:
        for client in streams:
            client.close()
        attacker.command("rm -f /tmp/long")
