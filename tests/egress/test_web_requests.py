"""Plain HTTP requests that try to name one host and reach another."""

import json

import pytest
from tests.egress.conftest import Inside
from tests.internet_servers import GREETING_PORT, NAMES

pytestmark = pytest.mark.anyio

_SEND = """
import socket, sys
received = b""
try:
    connection = socket.create_connection(("{address}", {port}), 5)
    connection.sendall(bytes.fromhex("{data}"))
    connection.settimeout(5)
    while data := connection.recv(65536):
        received += data
        if b"\\r\\n\\r\\n" in received and {enough}:
            break
except (ConnectionResetError, TimeoutError) as problem:
    received += type(problem).__name__.encode()
sys.stdout.buffer.write(received)
"""


async def _sent(inside: Inside, data: bytes, *, port: int = 80, answers: int = 1) -> bytes:
    enough = f'received.count(b"HTTP/1.1 ") >= {answers} and received.endswith((b"}}", b".\\n"))'
    code = _SEND.format(address=NAMES["allowed.example"], port=port, data=data.hex(), enough=enough)
    done = await inside.python(code)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\nHost: other.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\r\nHost: other.example\r\n",
        "GET / HTTP/1.1\r\nHost: other.example\r\nHost: allowed.example\r\n",
        "GET / HTTP/1.1\r\n",
        "GET http://other.example/ HTTP/1.1\r\nHost: allowed.example\r\n",
        "GET http://allowed.example/ HTTP/1.1\r\nHost: other.example\r\n",
        "GET http://allowed.example@other.example/ HTTP/1.1\r\nHost: allowed.example@other.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example@other.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example:8080\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example:x\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example:8_0\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example:+80\r\n",
        "POST / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example.other.example\r\n",
        "GET / HTTP/1.1\r\nHost: evil-allowed.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\0.other.example\r\n",
        "GET / HTTP/1.1\r\nHost: 2130706433\r\n",
        "GET / HTTP/1.1\r\nHost: 0x7f.1\r\n",
        "GET / HTTP/1.1\r\nHost: 93.184.216.36\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]\r\n",
        "CONNECT allowed.example:443 HTTP/1.1\r\nHost: allowed.example\r\n",
        "GET / HTTP/1.1\r\nHost : allowed.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\r\n Host: other.example\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: 4\r\nContent-Length: 40\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\r\nContent-Length: x\r\n",
        "GET / HTTP/1.1\r\nHost: allowed.example\r\nTransfer-Encoding: gzip, chunked\r\n",
    ],
)
async def test_requests_that_are_refused(inside: Inside, head: str) -> None:
    inside.allow("allowed.example")
    answer = await _sent(inside, f"{head}\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")), answer
    assert b"x-cove-egress: refused" in answer.lower()
    assert not (await inside.settled()).entries[-1].allowed


@pytest.mark.parametrize("host", ["ALLOWED.Example", "allowed.example.", "allowed.example:80"])
async def test_other_spellings_of_the_same_host(inside: Inside, host: str) -> None:
    inside.allow("allowed.example")
    answer = await _sent(inside, f"GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["address"] == NAMES["allowed.example"]


async def test_a_request_hidden_in_a_body_stays_a_body(inside: Inside) -> None:
    inside.allow("allowed.example")
    hidden = b"GET /hidden HTTP/1.1\r\nHost: other.example\r\n\r\n"
    head = b"POST /outer HTTP/1.1\r\nHost: allowed.example\r\n"
    counted = await _sent(inside, head + b"Content-Length: %d\r\n\r\n" % len(hidden) + hidden)
    assert json.loads(counted.partition(b"\r\n\r\n")[2])["body"] == hidden.decode()
    chunked = await _sent(
        inside, head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
    )
    assert b"/hidden" not in chunked.partition(b"\r\n\r\n")[0]
    entries = (await inside.settled()).entries
    assert "other.example" not in {entry.name for entry in entries if entry.allowed}


async def test_an_answer_that_cannot_be_read(inside: Inside) -> None:
    inside.allow(f"allowed.example:{GREETING_PORT}")
    request = f"GET / HTTP/1.1\r\nHost: allowed.example:{GREETING_PORT}\r\n\r\n"
    answer = await _sent(inside, request.encode(), port=GREETING_PORT)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert "answer cannot be read" in (await inside.settled()).entries[-1].reason


async def test_where_names_are_denied_a_name_is_needed(inside: Inside) -> None:
    inside.allow("*", deny=("other.example",))
    for data in (b"\r\nGET / HTTP/1.1\r\nHost: other.example\r\n\r\n", b"anything else\r\n"):
        assert await _sent(inside, data) == b"ConnectionResetError"
    assert "cannot be told" in (await inside.settled()).entries[-1].reason
    assert b" 403 " in await _sent(inside, b"PROPFIND / HTTP/1.1\r\nHost: other.example\r\n\r\n")


async def test_requests_on_other_ports_than_the_rule_says(inside: Inside) -> None:
    inside.allow("allowed.example:8080")
    fine = await _sent(inside, b"GET / HTTP/1.1\r\nHost: allowed.example:8080\r\n\r\n", port=8080)
    assert fine.startswith(b"HTTP/1.1 200 ")
    assert await _sent(inside, b"GET / HTTP/1.1\r\nHost: allowed.example\r\n\r\n") == b"ConnectionResetError"


_LONG_AND_SHORT = """
import http.client, json, sys
connection = http.client.HTTPConnection("allowed.example", timeout=10)
for number in range(2):
    connection.request("GET", "/bytes/3000000")
    assert len(connection.getresponse().read()) == 3000000
    connection.request("GET", "/after", headers={"number": str(number)})
    told = json.loads(connection.getresponse().read())
    assert (told["path"], told["headers"]["number"]) == ("/after", str(number)), told
connection.request("HEAD", "/bytes/3000000")
assert connection.getresponse().read() == b""
"""


async def test_after_a_long_answer_another_request_may_follow(inside: Inside) -> None:
    inside.allow("allowed.example")
    done = await inside.python(_LONG_AND_SHORT)
    assert done.returncode == 0, done.stderr
    (entry,) = [entry for entry in (await inside.settled()).entries if entry.kind == "http"]
    assert entry.received_bytes > 6_000_000
