"""Verdicts of policies."""

from ipaddress import ip_address

import pytest

from cove.egress.policy import Policy
from cove.models.network import EgressPolicy


def policy(*allow: str, deny: tuple[str, ...] = (), internal: tuple[str, ...] = ()) -> Policy:
    return Policy.of(EgressPolicy(allow=allow, deny=deny, internal=internal))


def test_nothing_is_allowed_unless_a_rule_says_so() -> None:
    closed = policy()
    assert not closed.on_lookup("example.com").allowed
    assert not closed.on_name("example.com", 443).allowed
    assert not closed.on_address(ip_address("8.8.8.8"), 443).allowed


def test_deny_wins() -> None:
    mostly = policy("*.example.com", "*", deny=("bad.example.com", "8.8.8.0/24", "*:25"))
    assert mostly.on_name("good.example.com", 443).allowed
    assert mostly.on_name("bad.example.com", 443).refusal == "the rule bad.example.com denies it"
    assert not mostly.on_lookup("bad.example.com").allowed
    assert not mostly.on_address(ip_address("8.8.8.8"), 443).allowed
    assert not mostly.on_answer("good.example.com", ip_address("8.8.8.8"), 443).allowed
    assert not mostly.on_name("good.example.com", 25).allowed
    assert mostly.on_lookup("good.example.com").allowed


def test_a_rule_for_one_port_opens_no_other() -> None:
    one = policy("db.example.com:5432")
    assert one.on_lookup("db.example.com").allowed
    assert one.on_name("db.example.com", 5432).allowed
    assert not one.on_name("db.example.com", 443).allowed


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.5.5", "192.168.1.1", "169.254.169.254", "100.100.100.200", "168.63.129.16"),
        *(
            "::1",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "0.0.0.0",
            "224.0.0.1",
            "2002:a00:1::",
        ),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    place = ip_address(address)
    everything = policy("*", "0.0.0.0/0", "::/0", "intranet.example")
    assert not everything.on_address(place, 443).allowed
    assert not everything.on_answer("intranet.example", place, 443).allowed
    opened = policy(
        "*", "intranet.example", internal=(f"{place}" if "." in address else f"[{place}]", "intranet.example")
    )
    assert opened.on_address(place, 443).allowed
    assert opened.on_answer("intranet.example", place, 443).allowed
    assert not opened.on_answer("other.example", ip_address("10.9.9.9"), 443).allowed
    # What the operator has opened is still for the policy to allow.
    assert (
        not policy("a.example", internal=(f"[{place}]" if ":" in address else address,)).on_address(place, 443).allowed
    )
