"""Names: what a sandbox may look up, and what it is told."""

import pytest
from tests.egress.conftest import Inside
from tests.internet_servers import NAMES

pytestmark = pytest.mark.anyio

_ASK = """
import dns.message, dns.query, sys
query = dns.message.make_query(sys.argv[1], sys.argv[2], use_edns=True)
for ask in (dns.query.udp, dns.query.tcp):
    response = ask(query, sys.argv[3], timeout=5)
    print(response.rcode().name, [str(one) for rrset in response.answer for one in rrset],
          [option.text for option in response.options if hasattr(option, "text")])
"""


async def _ask(inside: Inside, name: str, kind: str = "A", server: str = "8.8.8.8") -> list[str]:
    """The answers over UDP and TCP."""
    import sys

    done = await inside.run(sys.executable, "-c", _ASK, name, kind, server)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize("server", ["8.8.8.8", "192.0.2.53", "2001:4860:4860::8888"])
async def test_every_name_server_is_ours(inside: Inside, server: str) -> None:
    inside.allow("allowed.example")
    assert await _ask(inside, "allowed.example", server=server) == [f"NOERROR ['{NAMES['allowed.example']}'] []"] * 2
    refused = "NXDOMAIN [] ['no rule allows it']"
    assert await _ask(inside, "other.example", server=server) == [refused] * 2


async def test_private_answers_are_not_passed_on(inside: Inside) -> None:
    inside.allow("*")
    for name, kind in (("rebinding.example", "private"), ("metadata.example", "link-local")):
        told = f"NXDOMAIN [] ['{name} leads to an address that is {kind}']"
        assert await _ask(inside, name) == [told] * 2


async def test_aliases_are_followed(inside: Inside) -> None:
    inside.allow("alias.example")
    assert await _ask(inside, "alias.example") == [f"NOERROR ['{NAMES['allowed.example']}'] []"] * 2


async def test_nothing_of_a_refused_name_leaves(inside: Inside) -> None:
    inside.allow("asked.example")
    await _ask(inside, "secret.exfiltration.other.example")
    await _ask(inside, "secret.exfiltration.other.example", "TXT")
    told = await _ask(inside, "asked.example", "TXT")
    assert "asked.example" in told[0]
    assert "exfiltration" not in told[0]


async def test_kinds_that_could_hide_a_server_name_are_empty(inside: Inside) -> None:
    inside.allow("allowed.example")
    assert await _ask(inside, "allowed.example", "HTTPS") == ["NOERROR [] []"] * 2
    assert await _ask(inside, "allowed.example", "TXT") == ["NOERROR ['\"a text\"'] []"] * 2
