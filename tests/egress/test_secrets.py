"""Secrets of programs in a captured network: what goes out, where it may not, and what comes back."""

import base64
import json
from typing import Any

import pytest
from tests.egress.conftest import Inside
from tests.internet_servers import NAMES, WEBSOCKET_PORT

from cove.egress.termination import Pace
from cove.models.secrets import EgressSecret, SecretPlace

pytestmark = pytest.mark.anyio

PLACEHOLDER = "cove-secret-0123456789abcdef0123456789abcdef"
FORM = "application/x-www-form-urlencoded"
VALUE = 'sk-"live"/5+e8&cret'

_ASK = """
import http.client, json, sys
host, requests = json.loads(sys.argv[1])
connection = http.client.HTTPSConnection(host, timeout=10)
for request in requests:
    body = request.get("body", "").encode()
    given = request.get("headers", {})
    connection.putrequest(request.get("method", "GET"), request.get("path", "/"), skip_host="host" in given)
    for name, value in given.items():
        connection.putheader(name, value)
    if request.get("chunks"):
        connection.putheader("transfer-encoding", "chunked")
        connection.endheaders((body[at:at + 5] for at in range(0, len(body), 5)), encode_chunked=True)
    else:
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
    answer = connection.getresponse()
    print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""


def secret(
    *hosts: str, value: str = VALUE, places: frozenset[SecretPlace] = frozenset({SecretPlace.HEADERS})
) -> EgressSecret:
    """Of the usual kind."""
    return EgressSecret(
        name="API_KEY", placeholder=PLACEHOLDER, value=value, hosts=hosts or ("allowed.example",), places=places
    )


async def _ask(
    inside: Inside, *requests: dict[str, Any], host: str = "allowed.example"
) -> list[tuple[int, dict[str, str], str]]:
    """Answers to requests on one connection."""
    done = await inside.run(inside.interpreter, "-c", _ASK, json.dumps([host, requests]))
    assert done.returncode == 0, done.stderr
    return [(status, headers, body) for status, headers, body in map(json.loads, done.stdout.splitlines())]


def _reached(body: str) -> str:
    """All of the request that the server got: it tells it backwards, where a value is not looked for."""
    return json.loads(body)["backwards"][::-1]


async def test_values_go_out_in_place_of_placeholders_and_never_come_back(inside: Inside) -> None:
    inside.allow("allowed.example")
    inside.use(secret(places=frozenset(SecretPlace)))
    basic = base64.b64encode(f"user:{PLACEHOLDER}".encode()).decode()
    answers = await _ask(
        inside,
        {"headers": {"authorization": f"Bearer {PLACEHOLDER}", "x-tell": PLACEHOLDER}},
        {"headers": {"Authorization": f"Basic {basic}"}, "path": "/chunks"},
        {"path": f"/packed?key={PLACEHOLDER}&x=1", "headers": {"accept-encoding": "br, gzip;q=0.5, zstd"}},
        {"method": "POST", "body": f'{{"key": "{PLACEHOLDER}"}}', "headers": {"content-type": "application/json"}},
        {"method": "POST", "body": f"{'x' * 50}{PLACEHOLDER}{PLACEHOLDER}y", "chunks": True},
        {
            "method": "POST",
            "body": f"a={PLACEHOLDER}",
            "headers": {"content-type": FORM},
        },
    )
    assert [status for status, _, _ in answers] == [200] * 6
    quoted = "sk-%22live%22%2F5%2Be8%26cret"
    reached = [_reached(body) for _, _, body in answers]
    assert f"Bearer {VALUE}" in reached[0]
    assert f"Basic {base64.b64encode(f'user:{VALUE}'.encode()).decode()}" in reached[1]
    assert f"?key={quoted}&x=1" in reached[2]
    assert "accept-encoding: gzip;q=0.5\r\n" in reached[2]
    assert json.loads(reached[3].partition("\r\n\r\n")[2]) == {"key": VALUE}
    assert reached[4].endswith("x" * 50 + VALUE * 2 + "y")
    assert reached[5].endswith(f"a={quoted}")
    assert answers[0][1]["x-told"] == "*" * len(VALUE)
    for _, headers, body in answers:
        told = json.loads(body)
        assert VALUE not in body + json.dumps(headers)
        for form in (VALUE, quoted, json.dumps(VALUE), base64.b64encode(VALUE.encode()).decode()):
            assert form not in told["path"] + json.dumps(told["headers"]) + told["body"]
    entries = [entry for entry in (await inside.settled()).entries if entry.kind == "tls"]
    assert [(entry.name, entry.allowed) for entry in entries] == [("allowed.example", True)]


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"path": f"/{PLACEHOLDER}"}, "may not be in the path of a request"),
        ({"path": f"/?key={PLACEHOLDER}"}, "may not be in the query of a request"),
        ({"headers": {PLACEHOLDER: "x"}}, "may not be in the name of a header"),
        ({"body": PLACEHOLDER, "method": "POST"}, "may not be in the body of a request"),
        ({"body": f"xx{PLACEHOLDER}", "method": "POST", "chunks": True}, "may not be in the body of a request"),
        ({"headers": {"host": "other.example"}}, "it names another host than its connection"),
        ({"headers": {"host": "allowed.example:8443"}}, "names port 8443"),
    ],
)
async def test_requests_with_placeholders_where_none_may_be(
    inside: Inside, request_: dict[str, Any], reason: str
) -> None:
    inside.allow("allowed.example", "other.example")
    inside.use(secret())
    ((status, headers, body),) = await _ask(inside, request_)
    assert status == 403
    assert headers["x-cove-egress"] == "refused"
    assert reason in body
    entry = (await inside.settled()).entries[-1]
    assert (entry.allowed, entry.reason) == (False, body.partition(": ")[2].removesuffix(".\n"))
    assert VALUE not in body + entry.reason


async def test_other_hosts_plain_requests_and_look_ups_get_no_values(inside: Inside) -> None:
    inside.allow("*")
    inside.use(secret())
    header = f"authorization: Bearer {PLACEHOLDER}"
    other = await inside.curl("https://other.example/", "-H", header)
    assert b"403" not in other.stdout
    assert b"the secret API_KEY may not go to other.example:443" in other.stdout
    plain = await inside.curl("http://allowed.example/", "-H", header)
    assert b"the secret API_KEY goes over TLS only" in plain.stdout
    fronted = await inside.curl(
        "https://allowed.example/", "-H", header, "--resolve", f"allowed.example:443:{NAMES['other.example']}"
    )
    assert json.loads(fronted.stdout)["address"] == NAMES["allowed.example"]
    assert (await inside.curl(f"https://{PLACEHOLDER}.other.example/")).returncode == 6
    assert (await inside.settled()).entries[-1].reason == "the secret API_KEY may not be in a name that is looked up"


async def test_a_server_that_does_not_prove_to_be_the_host_gets_nothing(inside: Inside) -> None:
    inside.allow("impostor.example")
    inside.use(secret("impostor.example"))
    header = f"authorization: Bearer {PLACEHOLDER}"
    answer = await inside.curl("https://impostor.example/", "-H", header, "--write-out", "%{http_code}")
    assert answer.stdout.endswith(b"502"), answer
    assert b"The host cannot be used: the certificate of impostor.example is not trusted: Hostname" in answer.stdout
    assert "is not trusted" in (await inside.settled()).entries[-1].reason


async def test_values_change_and_go_between_requests_of_a_connection(inside: Inside) -> None:
    inside.allow("allowed.example")
    inside.use(secret())
    code = f"""
import http.client, json, sys
connection = http.client.HTTPSConnection("allowed.example", timeout=10)
for line in sys.stdin:
    connection.request("GET", "/", headers={{"authorization": "{PLACEHOLDER}"}})
    answer = connection.getresponse()
    print(json.dumps(json.loads(answer.read())["backwards"]), flush=True)
"""
    async with inside.started(inside.interpreter, "-c", code) as program:
        assert VALUE[::-1] in json.loads(await program.ask("one"))
        inside.use(secret(value="another-value"))
        assert "another-value"[::-1] in await program.ask("two")
        inside.use()
        assert PLACEHOLDER[::-1] in await program.ask("three")
        inside.allow("other.example")
        assert await program.ask("four") == ""
    report = await inside.settled()
    assert [entry.reason for entry in report.entries if entry.kind == "tls"] == [
        "the policy was changed, or the sandbox ended"
    ]


async def test_a_host_that_hangs_up_between_requests(inside: Inside) -> None:
    inside.allow("allowed.example")
    inside.use(secret())
    code = """
import http.client
connection = http.client.HTTPSConnection("allowed.example", timeout=10)
for path in ("/once", "/once", "/"):
    try:
        connection.request("GET", path)
        status = connection.getresponse()
    except (http.client.RemoteDisconnected, ConnectionError):
        connection.close()
        connection.request("GET", path)
        status = connection.getresponse()
    status.read()
    print(status.status)
"""
    done = await inside.python(code)
    assert done.stdout.split() == [b"200"] * 3, done


async def test_many_handshakes_and_requests_wait_for_their_turn() -> None:
    now = 1000.0
    pace = Pace(50.0, 64, clock=lambda: now)
    waits = [pace.wait() for _ in range(114)]
    assert waits[:64] == [0.0] * 64
    assert waits[-1] == pytest.approx(1.0)
    now += 10
    assert pace.wait() == 0.0


async def test_events_come_at_once(inside: Inside) -> None:
    inside.allow("allowed.example")
    inside.use(secret())
    code = """
import http.client
events, other = (http.client.HTTPSConnection("allowed.example", timeout=10) for _ in "12")
events.request("GET", "/events")
stream = events.getresponse()
print(stream.readline(), stream.readline())
other.request("GET", "/event")
other.getresponse().read()
print(stream.read())
"""
    done = await inside.python(code)
    assert done.stdout.decode().splitlines() == [r"b'data: first\n' b'\n'", r"b'data: second\n\n'"], done.stderr


async def test_web_sockets(inside: Inside) -> None:
    inside.allow(f"allowed.example:{WEBSOCKET_PORT}")
    inside.use(secret(f"allowed.example:{WEBSOCKET_PORT}"))
    code = f"""
from websockets.sync.client import connect
url = "wss://allowed.example:{WEBSOCKET_PORT}/"
with connect(url, additional_headers={{"authorization": "{PLACEHOLDER}"}}, proxy=None) as connection:
    print(connection.recv(5))
    connection.send("hello")
    print(connection.recv(5), connection.protocol.extensions)
"""
    done = await inside.python(code)
    assert done.stdout.decode().splitlines() == ["*" * len(VALUE), "hello []"], done.stderr


async def test_without_secrets_tls_is_not_touched(inside: Inside) -> None:
    inside.allow("allowed.example")
    for secrets, issuer in (((), "Test authority"), ((secret(),), "Cove egress authority")):
        inside.use(*secrets)
        done = await inside.curl("--verbose", "https://allowed.example/")
        assert f"issuer: CN={issuer}".encode() in done.stderr.replace(b" = ", b"="), done.stderr


async def test_http_2_is_not_carried(inside: Inside) -> None:
    inside.allow("allowed.example")
    inside.use(secret())
    code = """
import socket, ssl
with socket.create_connection(("allowed.example", 443), 5) as raw:
    with ssl.create_default_context().wrap_socket(raw, server_hostname="allowed.example") as connection:
        connection.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")
        print(connection.version(), b"".join(iter(lambda: connection.recv(1000), b"")))
"""
    done = await inside.python(code)
    assert b"TLSv1.3 b'HTTP/1.1 400 " in done.stdout, done
    assert b"it speaks HTTP/2" in done.stdout
