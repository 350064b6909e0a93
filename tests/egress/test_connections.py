"""What programs in a captured network reach, and what they are told when they may not."""

import json

import pytest
from tests.egress.conftest import Inside
from tests.internet import MACHINE_ADDRESS
from tests.internet_servers import ECHO_PORT, GREETING_PORT, NAMES

pytestmark = pytest.mark.anyio


async def test_closed_nothing_is_reachable(inside: Inside) -> None:
    for url in ("http://allowed.example/", "https://93.184.216.34/", f"http://{MACHINE_ADDRESS}/"):
        refused = await inside.curl(url)
        assert refused.returncode in (6, 7), (url, refused)


async def test_a_host_that_is_allowed_is_reached_by_its_name(inside: Inside) -> None:
    inside.allow("allowed.example")
    for scheme in ("http", "https"):
        answer = await inside.curl(f"{scheme}://allowed.example/path?x=1")
        assert answer.returncode == 0, answer.stderr
        told = json.loads(answer.stdout)
        assert told["headers"]["host"] == "allowed.example"
        assert (told["path"], told["address"]) == ("/path?x=1", NAMES["allowed.example"])
    report = await inside.settled()
    assert [(entry.kind, entry.name, entry.allowed) for entry in report.entries if entry.kind != "dns"] == [
        ("http", "allowed.example", True),
        ("tls", "allowed.example", True),
    ]
    assert report.totals.received_bytes > 1000
    assert report.totals.open_connections == 0


@pytest.mark.parametrize("url", ["http://other.example/", "https://other.example/", "https://nowhere.example/"])
async def test_other_names_are_unknown(inside: Inside, url: str) -> None:
    inside.allow("allowed.example")
    refused = await inside.curl(url)
    assert refused.returncode == 6, refused
    assert (await inside.settled()).entries[0].reason == "no rule allows it"


async def test_the_name_counts_and_not_the_address(inside: Inside) -> None:
    inside.allow("allowed.example")
    address = NAMES["other.example"]
    fronted = await inside.curl("https://other.example/", "--resolve", f"other.example:443:{NAMES['allowed.example']}")
    assert fronted.returncode == 35, fronted
    assert b"alert" in fronted.stderr
    assert (await inside.settled()).entries[-1].reason == "no rule allows it"
    # An allowed name at another host's address leads to the allowed host.
    led = await inside.curl("https://allowed.example/", "--resolve", f"allowed.example:443:{address}")
    assert json.loads(led.stdout)["address"] == NAMES["allowed.example"]
    host = await inside.curl("http://allowed.example/", "-H", "Host: other.example")
    assert (host.returncode, b"may not do that: no rule allows it" in host.stdout) == (0, True)
    no_name = await inside.curl("--insecure", f"https://{NAMES['allowed.example']}/")
    assert no_name.returncode == 35, no_name


async def test_each_request_of_a_connection_is_looked_at(inside: Inside) -> None:
    inside.allow("allowed.example", "www.allowed.example")
    code = f"""
import http.client
connection = http.client.HTTPConnection("{NAMES["allowed.example"]}", 80, timeout=5)
for host in ("allowed.example", "www.allowed.example", "other.example"):
    connection.putrequest("POST", "/", skip_host=True)
    connection.putheader("Host", host)
    connection.putheader("Content-Length", "4")
    connection.endheaders(b"body")
    answer = connection.getresponse()
    print(answer.status, answer.read().decode().strip())
"""
    lines = (await inside.python(code)).stdout.decode().splitlines()
    statuses = [line.split(" ", 1) for line in lines]
    assert [status for status, _ in statuses] == ["200", "200", "403"]
    told = [json.loads(text) for _, text in statuses[:2]]
    assert [one["address"] for one in told] == [NAMES["allowed.example"], NAMES["www.allowed.example"]]
    assert [one["body"] for one in told] == ["body", "body"]


@pytest.mark.parametrize("name", ["rebinding.example", "metadata.example", "intranet.example"])
async def test_names_that_lead_to_private_addresses(inside: Inside, name: str) -> None:
    inside.allow("*", name)
    refused = await inside.curl(f"http://{name}/")
    assert refused.returncode == 6, refused
    forced = await inside.curl(f"https://{name}/", "--resolve", f"{name}:443:{NAMES[name]}")
    assert forced.returncode == 35, forced
    raw = await inside.curl(f"http://{NAMES[name]}:8080/")
    assert raw.returncode != 0 or b"may not do that" in raw.stdout, raw
    inside.allow(name, internal=(name,))
    opened = await inside.curl(f"http://{name}/")
    assert json.loads(opened.stdout)["address"] == NAMES[name]


async def test_the_public_internet_without_what_is_not_public(inside: Inside) -> None:
    inside.allow("*")
    for url in ("https://other.example/", "http://93.184.216.99:8080/", "http://[2a00::5]/"):
        assert (await inside.curl("--insecure", url)).returncode == 0, url
    for address in ("10.1.2.3", "169.254.169.254", "192.168.1.1", MACHINE_ADDRESS, "[fd00::1]", "[2001:db8:66::1]"):
        assert (await inside.curl(f"http://{address}/")).returncode in (7, 52, 55, 56), address
    reasons = [entry.reason for entry in (await inside.settled()).entries if not entry.allowed]
    assert "its address is link-local" in reasons
    assert len(reasons) >= 6


async def test_raw_addresses_need_a_rule_for_networks(inside: Inside) -> None:
    inside.allow(f"93.184.216.0/24:{ECHO_PORT}")
    code = """
import socket
connection = socket.create_connection(("93.184.216.34", {port}), 5)
connection.sendall(b"question")
print(connection.recv(100))
"""
    assert (await inside.python(code.format(port=ECHO_PORT))).stdout == b"b'question'\n"
    other = await inside.python(code.format(port=8080))
    assert b"ConnectionResetError" in other.stderr or other.stdout == b"b''\n", other


async def test_ports_that_no_rule_names_are_refused_at_once(inside: Inside) -> None:
    inside.allow("allowed.example")
    code = f"""
import socket, time
began = time.monotonic()
try:
    print(socket.create_connection(("{NAMES["allowed.example"]}", 5432), 5).recv(1))
except ConnectionResetError:
    print(time.monotonic() - began < 3)
"""
    assert (await inside.python(code)).stdout == b"True\n"
    assert (await inside.settled()).entries[-1].reason == "no rule allows it"


async def test_where_the_server_speaks_first(inside: Inside) -> None:
    inside.allow(f"allowed.example:{GREETING_PORT}")
    code = """
import socket
connection = socket.create_connection(("allowed.example", {port}), 5)
print(connection.recv(100))
"""
    assert (await inside.python(code.format(port=GREETING_PORT))).stdout == b"b'hello\\n'\n"


async def test_a_change_of_the_policy_is_in_force_at_once(inside: Inside) -> None:
    inside.allow("allowed.example")
    assert (await inside.curl("https://allowed.example/")).returncode == 0
    inside.allow("other.example")
    assert (await inside.curl("https://allowed.example/")).returncode == 6
    assert (await inside.curl("https://other.example/")).returncode == 0
    inside.allow()
    assert (await inside.curl("https://other.example/")).returncode in (6, 7)


async def test_large_bodies_pass_whole(inside: Inside) -> None:
    inside.allow("allowed.example")
    for scheme in ("http", "https"):
        answer = await inside.curl(f"{scheme}://allowed.example/bytes/20000000")
        assert answer.stdout == bytes(20_000_000)
