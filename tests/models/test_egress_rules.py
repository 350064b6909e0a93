"""Egress rules: what is written, what it means, what is refused."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cove.models.egress_rules import EgressRule
from cove.models.host_names import canonical_host
from cove.models.network import MAX_RULES, NetworkPolicy, NetworkPreset


@pytest.mark.parametrize(
    ("written", "spelled"),
    [
        ("api.example.com", "api.example.com"),
        ("API.Example.COM.", "api.example.com"),
        ("*.Example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("xn--bcher-kva.example:443,8000-8010", "xn--bcher-kva.example:443,8000-8010"),
        ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
        ("192.0.2.7", "192.0.2.7/32"),
        ("192.0.2.7.", "192.0.2.7/32"),
        ("[2001:db8::]/32:443", "[2001:db8::]/32:443"),
        ("2001:DB8::1", "2001:db8::1/128"),
        ("*", "*"),
        ("*:25", "*:25"),
    ],
)
def test_one_spelling(written: str, spelled: str) -> None:
    rule = EgressRule.parse(written)
    assert str(rule) == spelled
    assert EgressRule.parse(spelled) == rule


@pytest.mark.parametrize(
    "written",
    [
        *("", " ", "*.*", "*.com", "a*.example.com", "*.*.example.com", "a..example.com", ".example.com", "-a.example"),
        *("example.com..", "exa\0mple.com", "evil\0.example.com", "example.com\n", "exam ple.com", "a" * 64 + ".a"),
        *("https://example.com", "user@example.com", "example.com%2e", "fe80::1%eth0", "[::1", "::1]"),
        *("2130706433", "0x7f.1", "0x7f000001", "127.1", "0177.0.0.1", "1.2.3", "1.2.3.4.5", "256.1.1.1"),
        *("192.0.2.1/24", "192.0.2.0/33", "example.com/24", "a.example:0", "a.example:65536", "a.example:"),
        *("a.example:x", "a.example:9-8", "a.example:1,", "a.example:+1", "a.example:٤٤٣", "x" * 301),
    ],
)
def test_what_could_be_misread_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        EgressRule.parse(written)


def test_names_match_whole_labels_only() -> None:
    exact, below = EgressRule.parse("example.com"), EgressRule.parse("*.example.com")
    assert exact.matches_name("example.com", 443)
    assert exact.matches_name("example.com", 80)
    assert not exact.matches_name("example.com", 8443)
    assert not exact.matches_name("www.example.com", 443)
    assert below.matches_name("www.example.com", 443)
    assert below.matches_name("a.b.example.com", 443)
    for other in ("example.com", "badexample.com", "example.com.evil.test", "wwwexample.com"):
        assert not below.matches_name(other, 443), other


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("*", "*", True),
        ("*", "a.example.com:22", True),
        ("*", "10.0.0.0/8", True),
        ("*:443", "*", False),
        ("*:443", "a.example.com", False),
        ("*:443", "a.example.com:443", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "*.a.example.com", True),
        ("*.example.com", "*.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.evilexample.com", False),
        ("*.a.example.com", "*.example.com", False),
        ("a.example.com", "*.example.com", False),
        ("a.example.com", "a.example.com:22", False),
        ("a.example.com", "*", False),
        ("a.example.com:1-9", "a.example.com:2-3,8", True),
        ("192.0.2.0/24", "192.0.2.7:22", True),
        ("192.0.2.7", "192.0.2.0/24", False),
        ("192.0.2.0/24", "a.example.com", False),
        ("192.0.2.0/24", "*", False),
        ("*.example.com", "192.0.2.7", False),
        ("::/0", "192.0.2.7", False),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("2001:db8::/32", "[2001:db8::1]:53", True),
    ],
)
def test_a_rule_covers_what_is_no_wider(wide: str, narrow: str, expected: bool) -> None:
    assert EgressRule.parse(wide).covers(EgressRule.parse(narrow)) is expected


def test_addresses_match_without_a_name_only() -> None:
    rule = EgressRule.parse("192.0.2.0/24:443")
    assert rule.matches_address(ip_address("192.0.2.9"), 443)
    assert rule.matches_address(ip_address("::ffff:192.0.2.9"), 443)
    assert not rule.matches_address(ip_address("192.0.2.9"), 80)
    assert not rule.matches_address(ip_address("192.0.3.9"), 443)
    assert not rule.matches_name("192.0.2.9", 443)
    assert not EgressRule.parse("example.com").matches_address(ip_address("192.0.2.9"), 443)


@given(st.text(max_size=80))
def test_a_rule_means_the_same_when_it_is_read_again(text: str) -> None:
    try:
        rule = EgressRule.parse(text)
    except ValueError:
        return
    assert EgressRule.parse(str(rule)) == rule
    assert str(rule).isascii()


@given(st.text(max_size=80))
def test_a_host_has_one_spelling(text: str) -> None:
    try:
        host = canonical_host(text)
    except ValueError:
        return
    assert canonical_host(str(host)) == host


def test_a_policy_is_refused_for_whatever_it_does_not_know() -> None:
    for wrong in (
        {"allow": ["*.*"]},
        {"allowed": ["example.com"]},
        {"preset": "everything"},
        {"allow": ["a.example"] * (MAX_RULES + 1)},
        {"allow": "example.com"},
    ):
        with pytest.raises(ValidationError):
            NetworkPolicy.model_validate(wrong)


def test_what_a_policy_comes_to() -> None:
    registries = ("packages.example",)
    in_force = NetworkPolicy(deny=("bad.example",)).in_force(registries=lambda: registries)
    assert (in_force.allow, in_force.deny) == (("*",), ("bad.example",))
    assert NetworkPolicy(allow=("A.example",)).in_force(registries=lambda: registries).allow == ("a.example",)
    both = NetworkPolicy(preset=NetworkPreset.PACKAGE_REGISTRIES, allow=("a.example",))
    assert both.in_force(registries=lambda: registries).allow == ("packages.example", "a.example")
    for said in ("{}", '{"allow": []}', '{"allow": [], "deny": ["a.example"]}', '{"preset": null, "allow": []}'):
        assert NetworkPolicy.model_validate_json(said).in_force(registries=lambda: registries).is_closed, said
    passed_on = NetworkPolicy.model_validate_json(NetworkPolicy(deny=("bad.example",)).model_dump_json())
    assert passed_on.in_force(registries=lambda: registries) == in_force
    assert NetworkPolicy(preset=NetworkPreset.NONE).in_force(registries=lambda: registries).is_closed
