"""`cove sandboxes ...` against a real server, as separate processes: what a shell script would see."""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.e2e.running_server import COVE, RunningServer, clean_environment, run_cove

from cove import Sandbox

WAIT_SECONDS = 30.0
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def sandbox(server: RunningServer) -> Iterator[Sandbox]:
    with Sandbox.create("base", base_url=server.url) as created:
        yield created


@pytest.fixture
def run(server: RunningServer) -> Run:
    def run(command: str, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return run_cove("sandboxes", command, "--base-url", server.url, *arguments, stdin=stdin)

    return run


def test_exec_streams_and_ends_with_the_exit_code(sandbox: Sandbox, run: Run) -> None:
    done = run("exec", "-e", "A=b c", "-w", "/tmp", sandbox.sandbox_id, 'echo "$A"; pwd; echo err >&2; exit 7')
    assert (done.returncode, done.stdout, done.stderr) == (7, b"b c\n/tmp\n", b"err\n")
    done = run("exec", sandbox.sandbox_id, "--", "printf", "%s|", "two words", "-n", "$A")
    assert (done.returncode, done.stdout) == (0, b"two words|-n|$A|")
    done = run("exec", "--json", "--timeout", "0.2", sandbox.sandbox_id, "sleep 100")
    assert done.returncode == 124
    assert json.loads(done.stdout)["timed_out"] is True


def test_exec_says_what_is_wrong(sandbox: Sandbox, run: Run) -> None:
    assert run("exec", sandbox.sandbox_id).returncode == 2
    assert run("exec", sandbox.sandbox_id, "--").returncode == 2
    done = run("exec", "-e", "novalue", sandbox.sandbox_id, "true")
    assert (done.returncode, b"has no '='" in done.stderr) == (1, True)
    done = run("exec", "1763382095abcdefgh", "true")
    assert (done.returncode, b"error:" in done.stderr, b"Traceback" in done.stderr) == (1, True, False)


def test_networks(run: Run) -> None:
    made = run("create", "base", "--allow", "Api.Example.com", "--deny", "*:25").stdout.decode().strip()
    refused = run("exec", made, "curl -sS -m 5 http://10.1.2.3/")
    assert b"no rule allows it" in refused.stdout
    shown = run("net", made).stdout.decode()
    assert "api.example.com; but not *:25" in shown
    assert "10.1.2.3:80" in shown
    assert "refused: no rule allows it" in shown
    told = json.loads(run("net", made, "--json").stdout)
    assert [entry["address"] for entry in told["entries"]] == ["10.1.2.3"]
    wrong = run("net", made, "--allow", "*.*")
    assert (wrong.returncode, b"--allow: '*' is not a host name" in wrong.stderr) == (1, True)
    assert b"the public internet" in run("net", made, "--preset", "public").stdout
    assert b"closed" in run("net", made, "--preset", "none").stdout
    assert b"closed: nothing but loopback" in run("show", made).stdout
    run("kill", made)
    contradiction = run("create", "base", "--internet", "--network", "none")
    assert (contradiction.returncode, b"contradict" in contradiction.stderr) == (1, True)


def test_a_reader_that_goes_away_is_no_error(sandbox: Sandbox, server: RunningServer) -> None:
    line = (
        f"{' '.join(COVE)} sandboxes exec --base-url {server.url} {sandbox.sandbox_id} 'yes | head -c 500000' | head -1"
    )
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, timeout=WAIT_SECONDS, env=clean_environment(), check=False
    )
    assert (done.stdout, done.stderr) == (b"y\n", b"")


def test_programs_in_the_background(sandbox: Sandbox, run: Run) -> None:
    started = run("exec", "--background", sandbox.sandbox_id, "echo out; echo err >&2; echo $'\\e[31m' >&2; read x")
    process = started.stdout.decode().strip()
    listed = json.loads(run("processes", sandbox.sandbox_id, "--json").stdout)
    assert [entry["process_id"] for entry in listed] == [process]
    ended = sandbox.get_process(process).wait(WAIT_SECONDS)
    assert ended.exit_code == 1  # there is nothing to read
    table = run("processes", sandbox.sandbox_id).stdout.decode()
    assert process in table
    assert "\x1b" not in table
    for options in ([], ["--follow"]):
        shown = run("logs", sandbox.sandbox_id, process, *options)
        assert (shown.returncode, shown.stdout, shown.stderr) == (0, b"out\n", b"err\n\x1b[31m\n")
    assert run("logs", sandbox.sandbox_id, process, "--stream", "stdout").stdout == b"out\n"
    assert run("logs", sandbox.sandbox_id, "nothing").returncode == 1


def test_kill_process(sandbox: Sandbox, run: Run) -> None:
    process = sandbox.commands.run("sleep 100", background=True)
    assert run("kill-process", sandbox.sandbox_id, process.id, "--signal", "SIGNOTHING").returncode == 1
    done = run("kill-process", sandbox.sandbox_id, process.id, "--signal", "2", "--json")
    assert (done.returncode, json.loads(done.stdout)["process_id"]) == (0, process.id)
    assert process.wait(WAIT_SECONDS).exit_code == 130


def test_cp_both_ways(sandbox: Sandbox, run: Run, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    os.mkfifo(tree / "fifo")
    here = sandbox.sandbox_id
    sent = run("cp", str(tree), f"{here}:")
    assert (sent.returncode, sent.stderr) == (0, b"left out: fifo: a FIFO, socket or device\n")
    assert sandbox.commands.run("tree/run.sh; ls tree").stdout == "ran\nempty\nrun.sh\n"
    assert run("cp", str(tree / "run.sh"), f"{here}:/tmp/").returncode == 0
    assert run("cp", str(tree / "run.sh"), f"{here}:new name").returncode == 0
    assert sandbox.commands.run("/tmp/run.sh 2>&1; ls").stdout.endswith("new name\ntree\n")
    assert run("cp", f"{here}:tree", str(tmp_path / "back")).returncode == 0
    assert run("cp", f"{here}:tree", str(tmp_path / "back")).returncode == 0
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == ["empty", "run.sh", "tree"]
    assert os.access(tmp_path / "back" / "tree" / "run.sh", os.X_OK)
    done = run("cp", "--json", f"{here}:tree/.", str(tmp_path / "back" / "empty"))
    assert json.loads(done.stdout)["entries"] == 2
    assert run("cp", f"{here}:/tmp/run.sh", str(tmp_path)).returncode == 0
    assert (tmp_path / "run.sh").read_text() == "#!/bin/sh\necho ran\n"


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        ("a", "b", "must be in a sandbox"),
        ("{id}:a", "{id}:b", "must be in a sandbox"),
        ("/nowhere/at/all", "{id}:", "No such file"),
        ("{id}:nothing", "/tmp/x", "No such file"),
        ("{id}:/etc/passwd", "/nowhere/at/all", "No such file"),
        ("{id}:/dev/null", "/tmp/x", "regular file"),
    ],
)
def test_cp_says_what_is_wrong(sandbox: Sandbox, run: Run, source: str, target: str, said: str) -> None:
    done = run("cp", source.format(id=sandbox.sandbox_id), target.format(id=sandbox.sandbox_id))
    assert done.returncode == 1
    assert said in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_lifecycle_commands(sandbox: Sandbox, run: Run) -> None:
    here = sandbox.sandbox_id
    for command, status in (("pause", "paused"), ("pause", "paused"), ("resume", "running")):
        done = run(command, here)
        assert (done.returncode, done.stdout.decode()) == (0, f"{here} {status}\n")
    done = run("resume", here, "1763382095abcdefgh", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["changed"] == [{"id": here, "status": "running"}]
    assert [failure["id"] for failure in answer["failed"]] == ["1763382095abcdefgh"]
    assert run("timeout", here, "1000").stdout.startswith(b"expires in 16 min")
    assert run("timeout", here, "0").stdout == b"expires never\n"
    assert run("timeout", here, "-1").returncode == 2
    assert f"/sandboxes/{here}/ports/3000/" in run("url", here, "3000").stdout.decode()
    assert run("url", here, "65536").returncode == 2
    changed = run("preview", here, "3000", "--access", "token", "--revoke", "--expires", "30m")
    assert f"/sandboxes/{here}/ports/3000/?cove_preview_token=ey" in changed.stdout.decode()
    assert b"preview access: token; earlier links are revoked" in changed.stderr
    assert b"works for 30 min" in changed.stderr
    assert json.loads(run("preview", here, "80", "--json").stdout)["access"] == "token"
    assert run("preview", here).returncode == 2
    refused = run("preview", here, "80", "--expires", "8d")
    assert (refused.returncode, b"expires_in_seconds" in refused.stderr) == (1, True)


def test_stop_and_start(sandbox: Sandbox, run: Run, as_root: None) -> None:
    sandbox.files.write("kept", "kept")
    assert run("stop", sandbox.sandbox_id).stdout.endswith(b" stopped\n")
    refused = run("exec", sandbox.sandbox_id, "true")
    assert (refused.returncode, b"stopped" in refused.stderr) == (1, True)
    assert run("start", sandbox.sandbox_id).stdout.endswith(b" running\n")
    assert run("exec", sandbox.sandbox_id, "cat kept").stdout == b"kept"


def test_watch(sandbox: Sandbox, server: RunningServer) -> None:
    command = [*COVE, "sandboxes", "watch", "--base-url", server.url, "--timeout", "20", sandbox.sandbox_id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment()) as watching:
        assert watching.stdout
        assert watching.stderr
        assert watching.stderr.readline() == b"Watching /workspace\n"
        sandbox.commands.run("touch $'a\\e[31m'")
        assert watching.stdout.readline().decode() == "created /workspace/a\N{REPLACEMENT CHARACTER}[31m\n"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(WAIT_SECONDS) == 130


def test_a_shell_without_a_terminal_runs_a_script(sandbox: Sandbox, run: Run) -> None:
    done = run("shell", sandbox.sandbox_id, stdin=b"echo out; echo err >&2\nexit 9\n")
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out\n", b"err\n")
    assert run("shell", sandbox.sandbox_id, "-c", "exit 4").returncode == 4
    assert run("shell", sandbox.sandbox_id, stdin=b"\xff").returncode == 1
    assert run("shell", sandbox.sandbox_id).returncode == 0
    done = run("shell", "--tty", sandbox.sandbox_id, stdin=b"stty size\ncat\n")
    assert (done.returncode, b"24 80" in done.stdout) == (0, True)


def test_a_shell_on_a_terminal(sandbox: Sandbox, server: RunningServer) -> None:
    ours, theirs = pty.openpty()
    try:
        _resize(theirs, 30, 100)
        before = termios.tcgetattr(theirs)
        command = [*COVE, "sandboxes", "shell", "--base-url", server.url, sandbox.sandbox_id]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=clean_environment()) as shell:
            _until(ours, b"$ ")
            os.write(ours, b"stty size\r")
            _until(ours, b"30 100")
            _resize(theirs, 50, 120)
            shell.send_signal(signal.SIGWINCH)
            os.write(ours, b"until [ \"$(stty size)\" = '50 120' ]; do :; done; echo re''sized\r")
            _until(ours, b"resized")
            os.write(ours, b"bash -c \"echo slee''ping; exec sleep 1000\"\r")
            _until(ours, b"sleeping")
            os.write(ours, b"\x03")
            _until(ours, b"$ ")
            os.write(ours, b"exit 6\r")
            _until(ours, b"exit 6")
            assert shell.wait(WAIT_SECONDS) == 6
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_a_session_is_left_and_found_again(sandbox: Sandbox, server: RunningServer, run: Run) -> None:
    with sandbox.terminal.connect(session="new") as terminal:
        terminal.send("A=42\n")
        session = terminal.session
    assert session
    done = run("shell", "--session", session, sandbox.sandbox_id, stdin=b"echo is-$A\nexit 3\n")
    assert (done.returncode, b"is-42" in done.stdout) == (3, True)
    done = run("shell", "--session", "term_nothing", sandbox.sandbox_id)
    assert (done.returncode, b"no such terminal session" in done.stderr) == (1, True)


def _resize(terminal: int, rows: int, columns: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _until(terminal: int, text: bytes) -> None:
    """Read until the terminal has shown `text`."""
    shown = b""
    deadline = time.monotonic() + WAIT_SECONDS
    while text not in shown:
        readable, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
        assert readable, f"{text!r} was not shown, but {shown!r}"
        shown += os.read(terminal, 65536)
