"""The API: fields that nobody may set, numbers, commands in names, variables that act on the host, host names."""

import json
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.security.attacks import attack
from tests.security.ground import Ground, tenant


@attack(
    "Mass assignment: a create that names its id, owner, namespace, status, driver, socket, limits beyond the maxima",
    expected="refused, or ignored and decided by the server",
    control="the same create without them succeeds",
)
def test_mass_assignment(ground: Ground) -> None:
    victim = ground.victim.sandbox_id
    extra: list[dict[str, Any]] = [
        {"id": victim},
        {"sandbox_id": victim, "namespace": "blue", "owner": "blue", "tenant": "blue"},
        {"status": "killed", "created_at": "1970-01-01T00:00:00Z", "auth_token": "x", "socket_path": "/etc/passwd"},
        {"isolation": "fake"},
        {"isolation": "none"},
        {"isolation": ""},
        {"privileged": True, "capabilities": ["CAP_SYS_ADMIN"], "seccomp": "unconfined", "mounts": ["/:/host"]},
        {"resources": {"memory_mb": 10**9}},
        {"resources": {"vcpu": 10**6}},
        {"resources": {"pids": 10**9, "open_files": 10**9}},
        {"template_name": "../../etc"},
        {"template_name": "base\x00x"},
    ]
    with tenant(ground.server, ground.red) as client:
        for fields in extra:
            body = {"template_name": "base", "isolation": ground.driver, "timeout_seconds": 60, **fields}
            answer = client.post("/v1/sandboxes", json=body)
            if answer.status_code != 201:
                assert answer.status_code in (400, 403, 404, 409), (fields, answer.text)
                continue
            created = answer.json()
            client.delete(f"/v1/sandboxes/{created['id']}")
            assert created["id"] != victim, fields
            assert created["isolation"] == ground.driver, fields
            assert created["status"] == "running", fields
            resources = created.get("resources", {})
            assert resources.get("memory_mb", 0) < 10**9, fields
            assert resources.get("vcpu", 0) < 10**6, fields
    with tenant(ground.server, ground.blue) as client:
        assert client.get(f"/v1/sandboxes/{victim}").json()["status"] == "running"


@attack(
    "Numbers that are none: negative, huge, NaN, infinite, text, in limits, timeouts, offsets and sizes",
    expected="400, and the agent goes on",
    control="an ordinary number is accepted",
)
def test_numbers(ground: Ground) -> None:
    numbers = ["-1", "1e400", "NaN", "Infinity", "-Infinity", "99999999999999999999", '"7"', "null", "[]", "true"]
    with tenant(ground.server, ground.red) as client:
        for number in numbers:
            for body in (
                f'{{"template_name": "base", "timeout_seconds": {number}, "isolation": "fake"}}',
                f'{{"template_name": "base", "isolation": "fake", "resources": {{"memory_mb": {number}}}}}',
            ):
                answer = client.post("/v1/sandboxes", content=body, headers={"Content-Type": "application/json"})
                assert 400 <= answer.status_code < 500, (number, answer.text)
    attacker = ground.attacker
    for number in numbers:
        for field in ("timeout", "max_output_bytes"):
            body = f'{{"command": "echo fine", "{field}": {number}}}'
            answer = attacker.http.post("/commands/run", content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (200, 400), (field, number, answer.text)
        for path in ("/files/read", "/files/list"):
            for name in ("offset", "limit"):
                answer = attacker.http.get(
                    path, params={"path": "/workspace", name: json.loads(number) if number[0] == '"' else number}
                )
                assert answer.status_code < 500, (path, name, number, answer.text)
    assert attacker.command("echo fine", timeout=5)["stdout"] == "fine\n"


@attack(
    "Variables that act on whoever starts programs: LD_PRELOAD, BASH_ENV, PYTHONPATH, exported functions, PATH",
    expected="they act inside at most, never in a process of the host",
    control="on the host BASH_ENV runs its file before any script",
)
def test_variables_that_act_on_the_host(ground: Ground) -> None:
    with tempfile.TemporaryDirectory(prefix="cove-trap-", dir="/tmp") as place:
        sprung, script = Path(place, "sprung"), Path(place, "trap.sh")
        script.write_text(f"touch {sprung}\n")
        Path(place, "sitecustomize.py").write_text(f"open({str(sprung)!r}, 'w').close()\n")
        for program in ("sh", "bash", "python3", "mount", "runsc", "ip", "id"):
            Path(place, program).write_text(f"#!/bin/sh\n/usr/bin/touch {sprung}\n")
            Path(place, program).chmod(0o755)
        subprocess.run(
            ["bash", "-c", "true"], env={"BASH_ENV": str(script), "PATH": "/usr/bin:/bin"}, check=True, timeout=10
        )
        assert sprung.exists()
        sprung.unlink()
        variables = {
            "BASH_ENV": str(script),
            "ENV": str(script),
            "PYTHONPATH": place,
            "PYTHONSTARTUP": str(script),
            "PATH": f"{place}:/usr/local/bin:/usr/bin:/bin",
            "BASH_FUNC_ls%%": f"() {{ touch {sprung}; }}",
            "PROMPT_COMMAND": f"touch {sprung}",
            "IFS": "/",
            "LD_LIBRARY_PATH": place,
        }
        with tenant(ground.server, ground.red) as client:
            for name, value in variables.items():
                body = {"template_name": "base", "isolation": ground.driver, "env_vars": {name: value}}
                if name in ("ENV", "IFS", "PROMPT_COMMAND", "LD_LIBRARY_PATH"):
                    continue  # set together, below: a create for each would take long
                answer = client.post("/v1/sandboxes", json={**body, "timeout_seconds": 60, "isolation": "fake"})
                assert 400 <= answer.status_code < 500, answer.text
        trapped = ground.make(env_vars={name: value for name, value in variables.items() if "%" not in name})
        try:
            trapped.http.post("/execute", json={"code": "ls", "language": "bash", "timeout": 5})
            trapped.http.post("/execute", json={"code": "print(1)", "language": "python", "timeout": 5})
            trapped.http.patch("/env", json={"env_vars": {"LD_PRELOAD": f"{place}/none.so"}})
            trapped.http.post("/commands/run", json={"command": "true", "timeout": 5})
        finally:
            trapped.kill()
        assert not sprung.exists()


@attack(
    "Commands in names: of sandboxes, background programs, terminals, files, templates; options instead of names",
    expected="names are names: nothing is run",
    control="a shell runs the same text",
)
def test_commands_in_names(ground: Ground) -> None:
    with tempfile.TemporaryDirectory(prefix="cove-trap-", dir="/tmp") as place:
        sprung = Path(place, "sprung")
        text = f"$(touch {sprung})`touch {sprung}`;touch {sprung}|touch {sprung}\ntouch {sprung}"
        subprocess.run(["sh", "-c", text], check=False, timeout=10, capture_output=True)
        assert sprung.exists()
        sprung.unlink()
        inside = text.replace(str(sprung), "/tmp/sprung-inside")
        attacker = ground.attacker
        with tenant(ground.server, ground.red) as client:
            for name in (text, "--help", "-rf /", "../../x"):
                for body in ({"name": name, "isolation": "fake"}, {"template_name": name}, {"template_id": name}):
                    answer = client.post("/v1/sandboxes", json={"template_name": "base", **body})
                    assert 400 <= answer.status_code < 500, (name, body, answer.text)
                assert client.get(f"/v1/sandboxes/{quote(name, safe='')}").status_code in (400, 404)
        attacker.http.post("/commands/background", json={"command": "true", "name": inside, "timeout": 5})
        attacker.http.delete(f"/terminal/sessions/{quote(inside, safe='')}")
        attacker.http.post("/files/write", json={"path": f"/workspace/{inside.replace('/', '_')}", "content": "x"})
        attacker.http.get("/files/list", params={"path": "/workspace"})
        attacker.http.get("/files/archive", params={"path": "/workspace"})
        attacker.http.post("/commands/run", json={"command": "echo", "args": [inside], "timeout": 5})
        attacker.http.post("/execute", json={"code": "1", "language": inside, "timeout": 5})
        assert not sprung.exists()
        assert attacker.command("test -e /tmp/sprung-inside || echo none")["stdout"] == "none\n"


@attack(
    "Host names: NUL, line breaks, user info, foreign names with a trusted beginning or end, several, none",
    expected="400 or a refusal of the name; never the control plane",
    control="the server's own name is served",
)
def test_host_names(ground: Ground) -> None:
    host, _, port = ground.server.url.removeprefix("http://").rpartition(":")
    sandbox_id = ground.victim.sandbox_id
    assert b" 200 " in _asked(host, int(port), b"Host: 127.0.0.1:%d" % int(port)).split(b"\r\n")[0]
    hostile = [
        b"Host: 127.0.0.1\0.evil.example",
        b"Host: evil.example\0.127.0.0.1",
        b"Host: 127.0.0.1.evil.example",
        b"Host: evil.example",
        b"Host: localhost.",
        b"Host: evil.example:80@127.0.0.1",
        b"Host: 127.0.0.1@evil.example",
        b"Host: 127.0.0.1\r\nHost: evil.example",
        b"Host: evil.example, 127.0.0.1",
        b"Host: 127.0.0.1/evil.example",
        b"Host:",
        b"X-No-Host: 1",
        b"Host: \xff\xfe",
        b"Host: xn--127001-.example",
        b"Host: 0x7f.1.evil.example",
        b"Host : 127.0.0.1",
        b"Host: 7777-%b.evil.example\0.localhost" % sandbox_id.encode(),
    ]
    for field in hostile:
        answer = _asked(host, int(port), field)
        first = answer.split(b"\r\n")[0]
        if field in (b"Host: localhost.", b"Host:"):  # a rooted name, and none at all (RFC 9110 7.2), are nobody else's
            assert first.split()[1] in (b"200", b"400", b"403", b"421"), first
            continue
        assert first.split()[1] in (b"400", b"401", b"403", b"404", b"421"), (field, answer[:200])
        assert b'"data"' not in answer


def _asked(host: str, port: int, field: bytes) -> bytes:
    with socket.create_connection((host, port), 10) as client:
        client.sendall(b"GET /health HTTP/1.1\r\n" + field + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := client.recv(65536):
            answer += part
    return answer


@attack(
    "Bodies that are hard to read: deep nesting, a million keys, the same key twice, huge numbers, other encodings",
    expected="refused quickly; the victim answers meanwhile",
    control="the same body, well formed, is accepted",
)
def test_bodies_that_are_hard_to_read(ground: Ground) -> None:
    bodies = [
        b"[" * 200_000,
        b'{"command":' * 50_000,
        b'{"command": "echo", "timeout": ' + b"9" * 100_000 + b"}",
        b"{" + b",".join(b'"k%d": 1' % number for number in range(100_000)) + b"}",
        b'{"command": "\xff\xfe"}',
        '{"command": "echo"}'.encode("utf-16"),
        b'{"command": "\\ud800"}',
        b"\x1f\x8b" + os.urandom(100),
        b"",
        b"null",
    ]
    attacker = ground.attacker
    for body in bodies:
        for path in ("/commands/run", "/execute", "/files/write"):
            answer = attacker.http.post(path, content=body, headers={"Content-Type": "application/json"})
            assert answer.status_code in (200, 400, 413), (body[:40], answer.text[:300])
        with tenant(ground.server, ground.red) as client:
            answer = client.post("/v1/sandboxes", content=body, headers={"Content-Type": "application/json"})
            if answer.status_code == 201:
                client.delete(f"/v1/sandboxes/{answer.json()['id']}")
            assert answer.status_code < 500, (body[:40], answer.text[:300])
    assert ground.victim.command("echo fine")["stdout"] == "fine\n"
