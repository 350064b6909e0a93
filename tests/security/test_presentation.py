"""What a sandbox says is shown somewhere: in logs, in pages, in terminals."""

import json
import subprocess
import sys

import httpx2
from tests.e2e.running_server import clean_environment
from tests.security.attacks import attack
from tests.security.ground import Ground

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x1b]52;c;b3duZWQ=\x07\x9b31m\u202e"
MARKUP = "<script>fetch('//evil.example')</script>"


@attack(
    "Pages from a sandbox's files at the server's own origin: HTML, SVG and scripts by download, read and archive",
    expected="never shown as a page of that origin",
    control="the file is HTML, and comes back whole",
)
def test_files_are_no_pages_of_the_server(ground: Ground) -> None:
    for name in ("page.html", "image.svg", "page.xhtml", "script.js", f"{MARKUP.replace('/', '_')}.html"):
        path = f"/workspace/{name}"
        ground.attacker.write(path, MARKUP)
        for route in ("/files/download", "/files/read", "/files/list"):
            answer = ground.attacker.http.get(route, params={"path": path if route != "/files/list" else "/workspace"})
            assert answer.status_code == 200
            assert answer.headers.get("x-content-type-options") == "nosniff", (route, dict(answer.headers))
            kind = answer.headers["content-type"]
            attached = answer.headers.get("content-disposition", "").startswith("attachment")
            policy = answer.headers.get("content-security-policy", "")
            assert attached or kind.startswith("application/json") or policy == "sandbox", (route, dict(answer.headers))
        download = ground.attacker.http.get("/files/download", params={"path": path})
        assert download.text == MARKUP
        assert download.headers["content-security-policy"] == "sandbox"


@attack(
    "Names and errors as headers: a file whose name has line breaks, quotes and escapes, downloaded",
    expected="one header, with nothing added to it",
    control="the file exists under that name",
)
def test_names_do_not_become_headers(ground: Ground) -> None:
    name = 'a"\r\nSet-Cookie: owned=1\r\n\r\n<b>' + ESCAPES
    path = f"/workspace/{name.replace('/', '_')}"
    ground.attacker.write(path, "content")
    answer = ground.attacker.http.get("/files/download", params={"path": path})
    assert answer.status_code == 200
    assert answer.text == "content"
    assert "set-cookie" not in answer.headers
    assert not [value for value in answer.headers.values() if "\x1b" in value or "owned" in value]
    missing = ground.attacker.http.get("/files/read", params={"path": path + "-missing"})
    assert missing.status_code == 404
    assert missing.headers["content-type"].startswith("application/json")
    assert b"\x1b" not in missing.content
    json.loads(missing.content)


@attack(
    "Escape sequences and markup in programs' output: a result is data, and stays what was printed",
    expected="JSON without bare control characters",
    control="the program's output has them, decoded",
)
def test_output_is_data(ground: Ground) -> None:
    answer = ground.attacker.http.post(
        "/execute", json={"code": f"print({ESCAPES!r} + {MARKUP!r})", "language": "python", "timeout": 10}
    )
    assert answer.json()["stdout"] == ESCAPES + MARKUP + "\n"
    assert answer.headers["content-type"].startswith("application/json")
    assert b"\x1b" not in answer.content
    assert b"\x07" not in answer.content


@attack(
    "Forging lines of the server's log: line breaks and escapes in paths, ids, names, agents, keys",
    expected="one line for each request, without control characters",
    control="the requests are logged",
)
def test_logs_cannot_be_forged(ground: Ground) -> None:
    forged = "2026-01-01 ERROR forged-line-19d2"
    before = ground.server.log.stat().st_size
    with httpx2.Client(base_url=ground.server.url, timeout=20, trust_env=False, verify=False) as client:
        client.get(f"/v1/sandboxes/%0a{forged}%1b%5b2J", headers={"X-API-Key": ground.red})
        client.get("/v1/sandboxes", headers={"X-API-Key": ground.red, "User-Agent": f"x\t\x1b[2J{forged}"})
        client.get("/v1/sandboxes", headers={"X-API-Key": ground.red, "X-Request-ID": "\x1b]0;" + forged})
        client.post("/v1/sandboxes", headers={"X-API-Key": ground.red}, json={"template_name": f"a\n{forged}\x1b[2J"})
        client.post(
            "/v1/sandboxes", headers={"X-API-Key": ground.red}, json={"template_name": "base", "name": f"\n{forged}"}
        )
    ground.attacker.http.get("/files/read", params={"path": f"/\n{forged}\x1b[2J"})
    with ground.server.log.open("rb") as log:
        log.seek(before)
        added = log.read()
    assert added.strip()
    assert b"\x1b" not in added
    assert not [line for line in added.splitlines() if line.strip().startswith(forged.encode()[:10])]


@attack(
    "Escape sequences at the operator's terminal: names of sandboxes and variables in tables",
    expected="shown, not sent",
    control="the name with escapes is stored or refused; the table is printed",
)
def test_tables_of_the_operator(ground: Ground) -> None:
    named = ground.make(env_vars={"NOTE": ESCAPES})
    try:
        shown = subprocess.run(
            [sys.executable, "-m", "cove.cli.main", "sandboxes", "list", "--base-url", ground.server.url],
            env=clean_environment(COVE_API_KEY=ground.red),
            capture_output=True,
            timeout=40,
        )
        assert named.sandbox_id.encode() in shown.stdout, shown.stderr
        assert b"\x1b]" not in shown.stdout + shown.stderr
        assert b"\x07" not in shown.stdout + shown.stderr
    finally:
        named.kill()
