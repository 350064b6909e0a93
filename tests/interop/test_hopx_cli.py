"""`hopx-cli`, unmodified, through the recipe for clients whose host is fixed: the commands that work in the client."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.interop.fixed_host import FixedHost, HopxCli, require_client


@pytest.fixture(scope="module")
def cli(fixed_host: FixedHost) -> Iterator[HopxCli]:
    require_client("hopx-cli")
    with HopxCli.warm(fixed_host) as warm:
        yield warm


@pytest.fixture(scope="module")
def box(cli: HopxCli) -> Iterator[str]:
    """The id of a sandbox for all tests here."""
    created = said(cli, "-o", "plain", "sandbox", "create", "-T", "600", "-e", "A=1")
    found = re.search(r"\b[0-9]{10}[a-z0-9]{8}\b", created)
    assert found, created
    yield found[0]
    said(cli, "sandbox", "kill", found[0], "--force")


@pytest.fixture(scope="module")
def logged_in(cli: HopxCli) -> HopxCli:
    """A code that is pasted at the prompt becomes a session: here it is a key of the server."""
    said(cli, "auth", "login", "--no-browser", stdin=f"{cli.host.key}\nskip\n")
    return cli


def said(cli: HopxCli, *arguments: str, stdin: str = "", code: int = 0) -> str:
    """What a command printed; it must end with `code`."""
    done = cli.run(*arguments, stdin=stdin)
    assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def said_json(cli: HopxCli, *arguments: str) -> Any:
    """The JSON at the end of what a command printed: lines of progress come before it."""
    text = said(cli, "-o", "json", *arguments)
    starts = [position for position in (text.find("{"), text.find("[")) if position >= 0]
    return json.loads(text[min(starts) :])


def test_the_server_is_healthy(cli: HopxCli) -> None:
    assert "healthy" in cli.run_anew("system", "health").stdout
    assert '"healthy"' in said(cli, "-o", "json", "system", "health")


def test_the_key_is_valid(cli: HopxCli) -> None:
    said(cli, "auth", "validate")


def test_a_wrong_key(cli: HopxCli) -> None:
    said(cli._replace(host=cli.host._replace(key="hopx_live_wrongwrongww.x")), "sandbox", "list", code=3)


def test_an_unknown_sandbox(cli: HopxCli) -> None:
    said(cli, "sandbox", "info", "1700000000aaaaaaaa", code=4)


def test_templates(cli: HopxCli) -> None:
    assert "code-interpreter" in said(cli, "template", "list")
    assert said_json(cli, "template", "info", "base")["name"] == "base"


def test_sandboxes(cli: HopxCli, box: str) -> None:
    assert box in said(cli, "-o", "plain", "sandbox", "list")
    assert box in json.dumps(said_json(cli, "sandbox", "list", "--limit", "5"))
    assert "running" in said(cli, "sandbox", "info", box)
    for arguments in (
        ["sandbox", "pause", box],
        ["sandbox", "resume", box],
        ["sandbox", "timeout", box, "99"],
        ["sandbox", "timeout", box, "0"],
        ["sandbox", "health", box],
        ["sandbox", "expiry", box],
        ["sandbox", "connect", box],
        ["terminal", "info", box],
    ):
        said(cli, *arguments)
    assert f"8080-{box}" in said(cli, "sandbox", "url", box, "8080")


def listed(cli: HopxCli) -> set[str]:
    return {one["id"] for one in cli.host.hopx_api("GET", "/v1/sandboxes?limit=1000")["data"]}


@pytest.mark.parametrize("form", ["-t base -e A=1 --no-internet", "--template-id {id}", "json"])
def test_forms_of_create(cli: HopxCli, form: str) -> None:
    number = cli.host.hopx_api("GET", "/v1/templates/base")["id"]
    output, options = ("json", "-t base") if form == "json" else ("plain", form.format(id=number))
    before = listed(cli)
    created = said(cli, "-o", output, "sandbox", "create", "-T", "60", *options.split())
    (made,) = listed(cli) - before
    assert made in created
    assert cli.host.hopx_api("GET", f"/v1/sandboxes/{made}")["template_name"] == "base"
    assert cli.host.hopx_api("DELETE", f"/v1/sandboxes/{made}")["id"] == made


def test_templates_of_the_server_cannot_be_deleted(cli: HopxCli) -> None:
    said(cli, "template", "delete", cli.host.hopx_api("GET", "/v1/templates/base")["id"], "--force", code=1)


def test_running_a_file(cli: HopxCli) -> None:
    (cli.host.home / "s.py").write_text("import os; print(os.environ['A'], 6 * 7)")
    before = listed(cli)
    assert "1 42" in said(cli, "run", "-f", str(cli.host.home / "s.py"), "-t", "base", "-e", "A=1", "--keep")
    (kept,) = listed(cli) - before
    assert "1 42" in said(cli, "run", "-f", str(cli.host.home / "s.py"), "-s", kept)
    cli.host.hopx_api("DELETE", f"/v1/sandboxes/{kept}")


def test_running_code(cli: HopxCli) -> None:
    assert "42" in said(cli, "-o", "plain", "run", "print(6 * 7)")
    said(cli, "run", "import sys; sys.exit(7)", code=7)
    assert "5" in said(cli, "-q", "run", "-l", "bash", "-T", "20", "echo $((2 + 3))")


def test_running_code_in_a_sandbox(cli: HopxCli, box: str) -> None:
    assert "9" in said(cli, "run", "-s", box, "print(4 + 5)")
    assert "7" in said(cli, "run", "-s", box, "-l", "javascript", "-e", "B=1", "console.log(3 + 4)")
    assert "cmd_" in said(cli, "run", "-s", box, "-b", "import time; time.sleep(60)")


def test_commands(cli: HopxCli, box: str) -> None:
    assert "/tmp" in said(cli, "cmd", "run", box, "pwd; echo $Z", "-e", "Z=1", "-w", "/tmp")
    assert said_json(cli, "cmd", "run", box, "echo json")["stdout"] == "json\n"
    assert "workspace" in said(cli, "cmd", "exec", box, "ls", "--", "-la", "/")
    assert "Exit Code: 6" in cli.run("cmd", "run", box, "exit 6").stdout
    assert "cmd_" in said(cli, "cmd", "run", box, "sleep 60", "-b")


def test_files(cli: HopxCli, box: str) -> None:
    local = cli.host.home / "up.txt"
    local.write_text("up\n")
    said(cli, "files", "write", box, "/workspace/x", "-d", "hello")
    assert "hello" in said(cli, "files", "read", box, "/workspace/x")
    said(cli, "files", "upload", box, str(local), "/workspace/up")
    said(cli, "files", "download", box, "/workspace/up", str(cli.host.home / "down.txt"))
    assert (cli.host.home / "down.txt").read_text() == "up\n"
    assert "up" in said(cli, "files", "list", box)
    assert {"x", "up"} <= {one["name"] for one in said_json(cli, "files", "list", box)}
    said(cli, "files", "info", box, "/workspace/x")
    said(cli, "files", "delete", box, "/workspace/x", "--force")
    assert "x" not in {one["name"] for one in said_json(cli, "files", "list", box)}


def test_environment(cli: HopxCli, box: str) -> None:
    variables = cli.host.home / "e.env"
    variables.write_text("L=1\nM=2\n")
    said(cli, "env", "set", box, "K", "V")
    assert "V" in said(cli, "env", "get", box, "K", "--no-mask")
    assert "K" in said(cli, "env", "list", box)
    said(cli, "env", "delete", box, "K", "--force")
    said(cli, "env", "load", box, "--file", str(variables))
    assert "L" in said(cli, "env", "list", box)
    said(cli, "env", "load", box, "--file", str(variables), "--replace", "--force")


def test_a_terminal(cli: HopxCli, box: str) -> None:
    assert "wss://" in said(cli, "terminal", "url", box)
    assert "13" in said(cli, "terminal", "connect", box, "-c", "echo $((6 + 7))")


@pytest.mark.parametrize("what", ["metrics", "agent-info", "processes", "jupyter", "snapshot"])
def test_what_the_sandbox_says(cli: HopxCli, box: str, what: str) -> None:
    said(cli, "system", what, box)
    said(cli, "-o", "json", "system", what, box)


def test_keys(logged_in: HopxCli) -> None:
    made = said(logged_in, "auth", "keys", "create", "-n", "another", "--no-store")
    found = re.search(r"hopx_live_([A-Za-z0-9]{12})\.", made)
    assert found, made
    assert "another" in said(logged_in, "auth", "keys", "list")
    assert "another" in said(logged_in, "auth", "keys", "info", found[1])
    said(logged_in, "auth", "keys", "revoke", found[1], "--force")
    assert found[1] not in said(logged_in, "auth", "keys", "list")


@pytest.mark.parametrize(
    "arguments",
    [
        "auth status",
        "auth refresh",
        "org info",
        "org list",
        "usage summary",
        "usage plans",
        "usage history",
        "usage history -r cost",
        "usage history -r cpu",
        "usage sandboxes",
        "profile info",
        "members list",
        "billing balance",
        "billing history",
        "billing invoices",
        "billing auto-recharge",
    ],
)
def test_the_account(logged_in: HopxCli, arguments: str) -> None:
    said(logged_in, *arguments.split())


def test_changes_of_the_account(logged_in: HopxCli) -> None:
    said(logged_in, "org", "update", "-n", "Another name")
    assert "Another name" in said(logged_in, "org", "info")
    said(logged_in, "profile", "update", "-f", "Ada")
    assert "Ada" in said(logged_in, "profile", "info")
    said(logged_in, "org", "switch", "1")
    # Nobody is invited by mail: this row of the matrix answers why, and what to do.
    assert "Make an API key for them" in said(logged_in, "members", "invite", "a@example.org", code=1)


def test_a_member_is_a_key(logged_in: HopxCli) -> None:
    made = logged_in.host.hopx_api("POST", "/auth/api-keys", {"name": "member"})["api_key"]["id"]
    said(logged_in, "members", "remove", made, "--force")
    assert "not found" in said(logged_in, "members", "remove", made, "--force", code=1)
