"""Secrets of real sandboxes on a real server: programs use what they cannot see."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import COVE, RunningServer, clean_environment, data_directory, run_cove, running_server
from tests.internet import Internet
from tests.internet_servers import NAMESERVER

from cove.sdk import ControlPlane, Sandbox

GIVEN, KEPT, ROTATED, NEWEST = (f"sk-live-{word}-0123456789" for word in ("given", "kept", "rotated", "newest"))
HOST = "allowed.example"
POLICY = {"allow": [HOST, "other.example"]}
LARGEST_READ = 16 * 1024 * 1024
"""Larger are only the disks of sandboxes."""

ASK = 'curl -sS -m 20 -H "Authorization: Bearer $GIVEN" -H "X-Kept: $KEPT" https://{host}/'


@pytest.fixture(scope="module")
def server(internet: Internet, built_data_dir: Path) -> Iterator[RunningServer]:
    variables = {
        "COVE_NAMESERVERS": json.dumps([NAMESERVER]),
        "COVE_EGRESS_TRUST": str(internet.certificate.authority),
    }
    with (
        internet.on_machine(),
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, "--dev", **variables) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def control(server: RunningServer) -> Iterator[ControlPlane]:
    with ControlPlane(base_url=server.url) as control:
        control.vault.set("kept", KEPT, hosts=[HOST, "*.allowed.example"])
        yield control


@pytest.fixture(scope="module", params=["namespace", "gvisor"])
def sandbox(server: RunningServer, control: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    control.vault.set("kept", KEPT)
    secrets = {"GIVEN": {"value": GIVEN, "hosts": [HOST]}, "KEPT": {"from_vault": "kept", "hosts": [HOST]}}
    try:
        made = Sandbox.create(
            "code-interpreter", base_url=server.url, network=POLICY, secrets=secrets, isolation=request.param
        )
    except Exception as problem:
        if getattr(problem, "code", "") != "ISOLATION_UNAVAILABLE":
            raise
        pytest.skip(str(problem))
    with made as sandbox:
        yield sandbox


def said(sandbox: Sandbox, code: str, language: str = "bash") -> str:
    """What a program prints, which must not hold a value."""
    done = sandbox.run_code(code, language=language)
    text = f"{done.stdout}{done.stderr}"
    for value in (GIVEN, KEPT, ROTATED, NEWEST):
        assert value not in text
    return text


def reached(answer: str) -> str:
    """The request as the server got it: it tells it backwards, too, where no value is looked for."""
    told: dict[str, Any] = json.loads(answer)
    return str(told["backwards"])[::-1]


def test_programs_see_placeholders_and_servers_see_values(sandbox: Sandbox) -> None:
    seen = said(sandbox, "echo $GIVEN; echo $KEPT; env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'")
    first, second = seen.split()[:2]
    assert first != second
    assert {first[:12], second[:12]} == {"cove-secret-"}
    request = reached(said(sandbox, ASK.format(host=HOST)))
    assert f"Bearer {GIVEN}" in request
    assert KEPT in request


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (
            "python",
            "import os, requests\n"
            "print(requests.get('https://allowed.example/', headers={'X-Key': os.environ['GIVEN']}, timeout=20).text)",
        ),
        (
            "python",
            "import os, urllib.request as u\n"
            "r = u.Request('https://allowed.example/', headers={'X-Key': os.environ['GIVEN']})\n"
            "print(u.urlopen(r, timeout=20).read().decode())",
        ),
        (
            "javascript",
            "const r = await fetch('https://allowed.example/', {headers: {'X-Key': process.env.GIVEN}});"
            "console.log(await r.text());",
        ),
    ],
)
def test_the_usual_clients_trust_what_is_between(sandbox: Sandbox, language: str, code: str) -> None:
    answer = said(sandbox, code, language)
    assert answer.startswith("{"), answer
    assert GIVEN in reached(answer)


def test_a_placeholder_goes_nowhere_else(sandbox: Sandbox) -> None:
    for url in ("https://other.example/", "http://allowed.example/", "https://allowed.example/?key=$GIVEN"):
        answer = said(sandbox, f'curl -sS -m 20 -w " %{{http_code}}" -H "X-Key: $GIVEN" "{url}"')
        assert answer.endswith("403"), (url, answer)
    assert json.loads(said(sandbox, "curl -sS -m 20 https://other.example/"))["path"] == "/"
    refused = [entry for entry in sandbox.network.get().entries if not entry.allowed]
    assert {entry.name for entry in refused} >= {"other.example", "allowed.example"}


def test_rotation_without_a_restart_and_through_stop_and_start(sandbox: Sandbox, control: ControlPlane) -> None:
    ask = ASK.format(host=HOST)
    assert control.vault.set("kept", ROTATED).sandboxes == 1
    sandbox.secrets.set("GIVEN", NEWEST)
    request = reached(said(sandbox, ask))
    assert (f"Bearer {NEWEST}" in request, ROTATED in request) == (True, True)
    if sandbox.info.isolation == "namespace":
        sandbox.stop()
        control.vault.set("kept", KEPT)
        sandbox.start()
        request = reached(said(sandbox, ask))
        assert (f"Bearer {NEWEST}" in request, KEPT in request) == (True, True)
    assert sandbox.secrets.withdraw("GIVEN").withdrawn
    request = reached(said(sandbox, ask))
    assert ("Bearer cove-secret-" in request, NEWEST in request) == (True, False)


def test_the_command_line_never_takes_a_value_as_a_word(server: RunningServer, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(GIVEN + "\n")
    url = ("--base-url", server.url)
    done = run_cove("secrets", "set", "by-command", "--host", HOST, *url, stdin=KEPT.encode())
    assert done.returncode == 0, done.stderr
    listed = run_cove("secrets", "list", *url).stdout.decode()
    assert "by-command" in listed
    options = ("--secret", f"GIVEN=file:{token}@{HOST}", "--secret", "KEPT=vault:by-command", "--allow", HOST)
    made = run_cove("sandboxes", "create", "base", *options, *url)
    assert made.returncode == 0, made.stderr
    name = made.stdout.decode().strip()
    shown = run_cove("sandboxes", "show", name, *url).stdout.decode()
    assert "by-command of the vault" in shown
    refused = run_cove("secrets", "rm", "by-command", *url)
    assert (refused.returncode, b"--force" in refused.stderr or b"force=true" in refused.stderr) == (1, True)
    assert run_cove("secrets", "rm", "by-command", "--force", *url).returncode == 0
    wrong = run_cove("sandboxes", "create", "base", "--secret", f"TOKEN={GIVEN}@{HOST}", *url)
    assert wrong.returncode == 1
    assert run_cove("sandboxes", "kill", name, *url).returncode == 0
    for output in (listed, shown, *(f"{one.stdout!r}{one.stderr!r}" for one in (done, made, refused, wrong))):
        assert GIVEN not in output
        assert KEPT not in output


def test_cove_run_uses_a_secret_without_a_server(internet: Internet, built_data_dir: Path) -> None:
    variables = {
        "COVE_NAMESERVERS": json.dumps([NAMESERVER]),
        "COVE_EGRESS_TRUST": str(internet.certificate.authority),
        "GIVEN": GIVEN,
    }
    program = ("-l", "bash", 'curl -sS -m 20 -H "X-Key: $GIVEN" https://allowed.example/')

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        words = [*COVE, "run", "--data-dir", str(data_dir), "--template", "base", *options, *program]
        environment = clean_environment(**variables)
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120, check=False)

    with internet.on_machine(), data_directory(built_data_dir) as data_dir:
        done = run("--allow", HOST, "--secret", f"GIVEN@{HOST}")
        refused = run("--allow", "other.example", "--secret", f"GIVEN@{HOST}")
    assert done.returncode == 0, done.stderr
    assert GIVEN in reached(done.stdout)
    assert (refused.returncode, "does not allow" in refused.stderr) == (1, True)
    assert GIVEN not in done.stdout + done.stderr + refused.stderr


def test_values_are_nowhere_in_the_clear(server: RunningServer, control: ControlPlane, sandbox: Sandbox) -> None:
    """In no file of the server, be it the store, a record or a log; in no answer; not in the audit log."""
    values = (GIVEN, KEPT, ROTATED, NEWEST)
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=30) as http:
        for path in ("/v1/sandboxes", f"/v1/sandboxes/{sandbox.info.id}", "/v1/secrets", "/v1/audit?limit=500"):
            text = http.get(path).text
            assert not [value for value in values if value in text], path
            assert "cove-secret-" not in text, path
        actions = {entry["action"] for entry in http.get("/v1/audit?limit=500").json()["data"]}
    assert actions >= {"secret.set", "sandbox.secret_changed", "sandbox.secret_withdrawn"}
    read = 0
    for path in server.data_dir.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST_READ:
            content = path.read_bytes()
            read += 1
            assert not [value for value in values if value.encode() in content], path
    assert read > 5
    assert control.get(sandbox.info.id).secrets["KEPT"].from_vault == "kept"
