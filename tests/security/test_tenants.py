"""Tenants from each other: every route of an agent, tokens, replies under load, what a new sandbox inherits."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import until
from tests.security.attacks import attack
from tests.security.ground import VICTIM_SECRET, Ground, make_sandbox, tenant
from tests.server.mcp.mcp_wire import message_of, tool_call

pytestmark = pytest.mark.anyio

CLIENTS = 50
_DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi" / "agent.json"


def agent_routes() -> list[tuple[str, str]]:
    """Method and path of every route of an agent, as the document has them."""
    paths = json.loads(_DOCUMENT.read_text(encoding="utf-8"))["paths"]
    return [(method.upper(), re.sub(r"\{\w+\}", "x", path)) for path, methods in paths.items() for method in methods]


@attack(
    "Every route of another tenant's agent, with the attacker's own token, key, and with nothing",
    expected="401 or 403 on each, under each of its addresses",
    control="with its own token the sandbox answers",
)
def test_every_route_of_another_agent(ground: Ground) -> None:
    routes = agent_routes()
    assert len(routes) >= 45
    victim = ground.victim.sandbox_id
    credentials: list[dict[str, str]] = [
        {"Authorization": f"Bearer {ground.attacker.token}"},
        {"X-API-Key": ground.red},
        {"Authorization": f"Bearer {ground.red}"},
        {},
    ]
    with httpx2.Client(base_url=ground.server.url, timeout=30, trust_env=False, verify=False) as client:
        for method, path in routes:
            for headers in credentials:
                for address in (f"/sandboxes/{victim}{path}", f"/sandboxes/{victim}/ports/7777{path}"):
                    answer = client.request(method, address, headers=headers)
                    assert answer.status_code in (401, 403), (method, address, answer.text)
                    assert VICTIM_SECRET not in answer.text
    assert (
        ground.victim.http.get("/files/read", params={"path": "/workspace/secret"}).json()["content"] == VICTIM_SECRET
    )


@attack(
    "A token for the victim made from what is public: algorithm `none`, HS256 keyed with the public key, own claims",
    expected="401",
    control="the token that the server issued opens the sandbox",
)
def test_tokens_with_another_algorithm(ground: Ground) -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    private = load_pem_private_key((ground.server.data_dir / "keys" / "agent-tokens.pem").read_bytes(), None)
    public = private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    head, claims, signature = ground.victim.token.split(".")
    forged = [f"{_part({**_read(head), 'alg': name})}.{claims}." for name in ("none", "None", "NONE", "")]
    for name, secret in (("HS256", pem), ("HS256", raw), ("HS512", pem), ("EdDSA", raw)):
        signed = f"{_part({**_read(head), 'alg': name})}.{claims}"
        digest = hmac.new(secret, signed.encode(), hashlib.sha512 if name == "HS512" else hashlib.sha256).digest()
        forged.append(f"{signed}.{_text(digest)}")
    mine = ground.attacker.token.split(".")
    longer = _part({**_read(claims), "exp": int(time.time()) + 10**8})
    forged += [
        f"{mine[0]}.{claims}.{mine[2]}",
        f"{head}.{longer}.{signature}",
        f"{head}.{claims}.{signature}.x",
        "..",
        ".",
    ]
    address = f"{ground.server.url}/sandboxes/{ground.victim.sandbox_id}/info"
    for token in forged:
        answer = httpx2.get(address, headers={"Authorization": f"Bearer {token}"}, verify=False)
        assert answer.status_code == 401, token
    assert ground.victim.http.get("/info").status_code == 200


def _read(part: str) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def _part(value: dict[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@attack(
    "Replies that reach another client: 50 clients at once with a marker each, over the agents of two tenants",
    expected="each gets its own",
    control="the markers differ, so that an exchange shows",
)
async def test_replies_of_agents_under_load(ground: Ground) -> None:
    async def one(number: int) -> None:
        inside = (ground.attacker, ground.victim)[number % 2]
        headers = {"Authorization": f"Bearer {inside.token}"}
        async with httpx2.AsyncClient(
            base_url=f"{ground.server.url}/sandboxes/{inside.sandbox_id}",
            headers=headers,
            timeout=50,
            trust_env=False,
            verify=False,
        ) as client:
            for turn in range(3):
                marker = f"marker-{number}-{turn}-{inside.sandbox_id}"
                path = f"/tmp/{marker}"
                wrote = await client.post("/files/write", json={"path": path, "content": marker})
                assert wrote.status_code < 300, wrote.text
                read = await client.get("/files/read", params={"path": path})
                assert read.json()["content"] == marker
                assert (await client.get("/info")).json()["vm_id"] == inside.sandbox_id

    async with asyncio.timeout(50):
        await asyncio.gather(*(one(number) for number in range(CLIENTS)))


@attack(
    "Replies that reach another client over MCP: 50 clients of two tenants at once, the same request ids",
    expected="each gets its own",
    control="the markers differ, so that an exchange shows",
)
async def test_replies_of_mcp_under_load(ground: Ground) -> None:
    async def one(number: int) -> None:
        inside = (ground.attacker, ground.victim)[number % 2]
        marker = f"marker-{number}-{inside.sandbox_id}"
        async with httpx2.AsyncClient(
            base_url=ground.server.url,
            headers={"Authorization": f"Bearer {inside.key}"},
            timeout=55,
            trust_env=False,
            verify=False,
        ) as client:
            arguments = {"sandbox_id": inside.sandbox_id, "command": f"echo {marker}"}
            answer = await client.post("/mcp", **tool_call("run_command", arguments))
            assert answer.status_code == 200, answer.text
            result = message_of(answer)["result"]
            assert not result.get("isError"), result
            assert result["structuredContent"]["stdout"] == f"{marker}\n"

    async with asyncio.timeout(55):
        await asyncio.gather(*(one(number) for number in range(CLIENTS)))


@attack(
    "Another tenant's sandbox through MCP tools: run, read, delete, by its id",
    expected="it does not exist",
    control="its own tenant runs a command in it",
)
async def test_mcp_tools_on_another_sandbox(ground: Ground) -> None:
    victim = ground.victim.sandbox_id
    calls: list[tuple[str, dict[str, Any]]] = [
        ("run_command", {"sandbox_id": victim, "command": "cat /workspace/secret"}),
        ("execute_code_persistent", {"sandbox_id": victim, "code": "print(secret)"}),
        ("file_read", {"sandbox_id": victim, "path": "/workspace/secret"}),
        ("env_get", {"sandbox_id": victim}),
        ("get_sandbox", {"id": victim}),
        ("delete_sandbox", {"id": victim}),
    ]
    for key, opened in ((ground.red, False), (ground.blue, True)):
        async with httpx2.AsyncClient(
            base_url=ground.server.url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=50,
            trust_env=False,
            verify=False,
        ) as client:
            for name, arguments in calls[:1] if opened else calls:
                answer = message_of(await client.post("/mcp", **tool_call(name, arguments)))
                failed = "error" in answer or bool(answer["result"].get("isError"))
                assert failed != opened, (name, answer)
                assert (VICTIM_SECRET in json.dumps(answer)) == opened, name


@attack(
    "A sandbox that follows another one's end: files, shared memory, processes, environment of the first",
    expected="nothing of them is there",
    control="they are there in the first",
)
def test_recycled_sandboxes(ground: Ground) -> None:
    places = ("/workspace", "/tmp", "/dev/shm", "/home/user", "/var/tmp")
    leave = f"for d in {' '.join(places)}; do echo recycled-7a1c > $d/left; done; sleep 1000.7711 &"
    look = f"cat {'/left '.join(places)}/left /proc/[0-9]*/cmdline 2>/dev/null; env"
    first = make_sandbox(ground.server, ground.blue, ground.driver, env_vars={"LEFT": "recycled-7a1c"})
    try:
        first.command(leave)
        assert first.command(look)["stdout"].count("recycled-7a1c") == 6
    finally:
        first.kill()
    second = ground.make()
    try:
        said = second.command(look)["stdout"]
        assert "recycled-7a1c" not in said
        assert "1000.7711" not in said
        used = second.http.get("/files/list", params={"path": "/workspace"}).json()
        assert "left" not in json.dumps(used)
    finally:
        second.kill()


@attack(
    "Guessing what another sandbox of the same template draws: random numbers, uuids, keys, file names",
    expected="they differ; clocks are the host's",
    control="the same seed gives the same numbers",
)
def test_random_state_is_not_shared(ground: Ground) -> None:
    code = """
import hashlib, os, random, secrets, ssl, tempfile, time, uuid
print(random.random(), random.SystemRandom().random())
print(os.urandom(8).hex(), secrets.token_hex(8), ssl.RAND_bytes(8).hex())
print(uuid.uuid4(), uuid.uuid1())
print(tempfile.mktemp())
"""
    assert (
        ground.attacker.execute("import random; random.seed(1); print(random.random())")["stdout"]
        == (ground.victim.execute("import random; random.seed(1); print(random.random())")["stdout"])
    )
    third = ground.make()
    try:
        drawn = [third.execute(code)["stdout"].split()]
        assert drawn[0]
    finally:
        third.kill()
    fourth = ground.make()
    try:
        drawn.append(fourth.execute(code)["stdout"].split())
        clock = float(fourth.execute("import time; print(time.time())")["stdout"])
        assert abs(clock - time.time()) < 5
    finally:
        fourth.kill()
    same = [one for one, other in zip(*drawn, strict=True) if one == other]
    assert same == [], same


@attack(
    "Endings: a token, a preview and an agent's address after the sandbox was killed",
    expected="404, and nothing of it is left on the host",
    control="before the kill they answer",
)
def test_after_the_end(ground: Ground) -> None:
    doomed = ground.make()
    traces = ground.server.traces(doomed.sandbox_id)
    headers = {"Authorization": f"Bearer {doomed.token}"}
    address = f"{ground.server.url}/sandboxes/{doomed.sandbox_id}"
    assert httpx2.get(f"{address}/info", headers=headers, verify=False).status_code == 200
    with tenant(ground.server, ground.blue) as stranger:
        assert stranger.delete(f"/v1/sandboxes/{doomed.sandbox_id}").status_code == 404
    assert httpx2.get(f"{address}/info", headers=headers, verify=False).status_code == 200
    doomed.kill()
    for path in ("/info", "/ports/3000/", "/files/read?path=/etc/passwd"):
        assert httpx2.get(address + path, headers=headers, verify=False).status_code == 404
    until(lambda: not traces.present(), seconds=5, what="nothing is left of it")
