"""`cove run` and `cove doctor` as a shell sees them: one command, no server, nothing left."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.running_server import COVE, clean_environment, run_cove, until

Run = Callable[..., subprocess.CompletedProcess[bytes]]

SLEEPER = "import os, time; print('running', flush=True); os.system('sleep 1000 & echo child; wait')"


@pytest.fixture
def run(own_data_dir: Path) -> Run:
    """`cove run` on a data directory of the test's own; `own_data_dir` sees to it that nothing stays."""

    def run_program(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return run_cove("run", "--data-dir", str(own_data_dir), *arguments, stdin=stdin)

    return run_program


def test_output_goes_where_it_belongs_and_the_exit_code_is_the_programs(run: Run) -> None:
    ended = run("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    assert (ended.stdout, ended.stderr, ended.returncode) == (b"out\n", b"err\n", 7)


@pytest.mark.parametrize(
    ("language", "code"),
    [("js", "console.log(6 * 7)"), ("bash", "echo $((6 * 7))"), ("go", "package main\nfunc main() { println(42) }")],
)
def test_other_languages(run: Run, language: str, code: str) -> None:
    ended = run("-l", language, code)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout + ended.stderr == b"42\n"


def test_code_from_stdin_and_from_a_file(run: Run, tmp_path: Path) -> None:
    assert run("-", stdin="print('grüße')".encode()).stdout == "grüße\n".encode()
    script = tmp_path / "script.sh"
    script.write_text("echo from a file; exit 5")
    ended = run("-l", "bash", "-f", str(script))
    assert (ended.stdout, ended.returncode) == (b"from a file\n", 5)


def test_variables(run: Run) -> None:
    ended = run("-l", "bash", "--env", "A=1", "-e", "B=x=y z", 'echo "$A|$B|${COVE_PROBE-unset}"')
    assert ended.stdout == b"1|x=y z|unset\n"


def test_json(run: Run) -> None:
    ended = run("--json", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")
    result = json.loads(ended.stdout)
    assert ended.returncode == 3
    assert ended.stderr == b""
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)
    assert result["isolation"]
    assert result["success"] is False


def test_a_failing_program_shows_its_traceback(run: Run) -> None:
    ended = run("1 / 0")
    assert ended.returncode == 1
    assert ended.stdout == b""
    assert b"ZeroDivisionError" in ended.stderr
    assert b"site-packages" not in ended.stderr


def test_a_timeout_ends_the_program_and_says_so(run: Run) -> None:
    ended = run("--timeout", "1", SLEEPER)
    assert ended.returncode == 124
    assert ended.stdout.startswith(b"running\n")
    assert b"1 s" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-l", "ruby", "puts 1"], b"python, javascript, bash, go"),
        (["--template", "no-such-template", "1"], b"cove templates list"),
        (["--timeout", "-1", "1"], b"timeout"),
        (["--timeout", "nan", "1"], b"timeout"),
        (["--timeout", "1e12", "1"], b"timeout"),
        (["--env", "no-separator", "1"], b"NAME=VALUE"),
        (["--env", "=value", "1"], b"not a name"),
        (["--env", "A\nB=1", "1"], b"not a name"),
        (["-f", "/no/such/file"], b"/no/such/file"),
        ([], b"argument"),
        (["1", "-f", "/dev/null"], b"argument"),
        (["--isolation", "fake", "1"], b"fake"),
        (["--isolation", "nonsense", "1"], b"nonsense"),
        (["--allow", "http://a.example.com", "1"], b"--allow: 'http://a.example.com' holds a URL"),
        (["--network", "everything", "1"], b"package-registries"),
        (["--internet", "--network", "none", "1"], b"contradict"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(run: Run, arguments: list[str], said: bytes) -> None:
    ended = run(*arguments)
    assert ended.returncode != 0
    assert ended.stdout == b""
    assert said in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_a_network_within_a_policy(run: Run) -> None:
    curl = "curl -sS -m 5 http://10.1.2.3/; echo $?"
    policed = run("-l", "bash", "--allow", "api.example.com", "--isolation", "namespace", curl)
    assert policed.stdout == b"This sandbox may not do that: no rule allows it.\n0\n"
    closed = run("-l", "bash", "--network", "none", curl)
    assert closed.stdout == b"7\n"


def test_code_that_is_not_text(run: Run) -> None:
    ended = run("-", stdin=b"print(1)\xff")
    assert ended.returncode == 1
    assert b"UTF-8" in ended.stderr


def test_refusals_as_json(run: Run) -> None:
    ended = run("--json", "-l", "ruby", "puts 1")
    assert ended.returncode == 1
    refusal = json.loads(ended.stdout or ended.stderr)["error"]
    assert refusal["code"] == "UNSUPPORTED_LANGUAGE"
    assert refusal["remedy"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_it_leaves_nothing(own_data_dir: Path, number: signal.Signals) -> None:
    command = [*COVE, "run", "--data-dir", str(own_data_dir), SLEEPER]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=clean_environment(),
        start_new_session=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"running\n"
        os.kill(process.pid, number)
        ended = process.wait(20)
    assert ended in {-signal.SIGKILL, 130}
    if number == signal.SIGKILL:
        # It could not tidy up: its processes have ended with it, and the next one removes what lies about.
        assert run_cove("run", "--data-dir", str(own_data_dir), "print(1)").stdout == b"1\n"


def test_a_reader_that_goes_away_ends_it(own_data_dir: Path) -> None:
    command = " ".join(
        [*COVE, "run", "--data-dir", str(own_data_dir), "'while True: print(1)'", "|", "head", "-n", "2"]
    )
    ended = subprocess.run(
        ["bash", "-c", command], capture_output=True, timeout=30, check=False, env=clean_environment()
    )
    assert ended.stdout == b"1\n1\n"
    assert b"Traceback" not in ended.stderr


def test_doctor(own_data_dir: Path) -> None:
    ended = run_cove("doctor", "--json", "--data-dir", str(own_data_dir))
    diagnosis = json.loads(ended.stdout)
    assert ended.returncode == 0
    assert diagnosis["works"] is True
    assert diagnosis["cgroup_mode"] in {"none", "v1", "v2", "hybrid"}
    assert {"base", "code-interpreter"} <= set(diagnosis["templates"])
    probed = {driver["isolation"]: driver["available"] for driver in diagnosis["drivers"]}
    assert probed["namespace"] is True
    assert [finding["state"] for finding in diagnosis["findings"] if finding["name"] == "networks"] == ["ok"]
    for finding in diagnosis["findings"]:
        assert finding["state"] in {"ok", "partly", "missing"}
        assert finding["detail"]
    until(lambda: not list(own_data_dir.glob("embedded-*")), seconds=5, what="the probe has tidied up")
