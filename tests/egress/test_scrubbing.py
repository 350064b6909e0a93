"""Values are found in every form, whatever pieces they come in."""

import base64
import json
from itertools import pairwise
from urllib.parse import quote

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove.egress.refusals import Refused
from cove.egress.rewriting import Rewriting
from cove.egress.scrubbing import Scrubber, forms, scrubbed
from cove.egress.secrets import Destination, Secrets
from cove.models.secrets import EgressSecret, SecretPlace

_NEEDLES = (b"aab", b"abaab", b"bcab", b"aaaa")
_TEXTS = st.text("abc", max_size=60).map(str.encode)
_CUTS = st.lists(st.integers(0, 60), max_size=8)
_VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=40)
_PLACEHOLDERS = ("cove-secret-" + "c0" * 16, "cove-secret-" + "0c" * 16)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cuts), len(data)]
    return [data[one:other] for one, other in pairwise(places)]


@given(_TEXTS, _CUTS)
def test_pieces_are_scrubbed_like_the_whole(data: bytes, cuts: list[int]) -> None:
    covered = {
        at + offset
        for needle in _NEEDLES
        for at in range(len(data))
        if data.startswith(needle, at)
        for offset in range(len(needle))
    }
    expected = bytes(ord("*") if at in covered else sign for at, sign in enumerate(data))
    scrubber = Scrubber(_NEEDLES)
    assert b"".join([*map(scrubber.feed, _pieces(data, cuts)), scrubber.finish()]) == expected
    assert scrubbed(data, _NEEDLES) == expected


@given(_TEXTS)
def test_only_what_may_begin_a_value_waits(data: bytes) -> None:
    held = data[len(Scrubber(_NEEDLES).feed(data)) :]
    assert not held or any(needle.startswith(held) and needle != held for needle in _NEEDLES)


@given(_VALUES, st.binary(max_size=5), st.binary(max_size=5))
def test_forms_in_which_servers_tell_it_back(value: str, before: bytes, after: bytes) -> None:
    told = [
        *(value, quote(value), quote(value, safe="").lower(), json.dumps(value), json.dumps(json.dumps(value))),
        *(json.dumps(value).replace("/", "\\/"), value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")),
    ]
    needles = forms(value)
    for text in told:
        if value == value.lower() or text != quote(value, safe="").lower():
            assert b"********" in scrubbed(text.encode(), needles), text
    packed = base64.b64encode(before + value.encode() + after)
    # A value of 8 signs leaves 9 or 10 signs of Base64 that are its own alone.
    assert b"********" in scrubbed(packed, needles)
    assert b"********" in scrubbed(packed.replace(b"+", b"-").replace(b"/", b"_"), needles)


def _rewriting(places: frozenset[SecretPlace]) -> Rewriting:
    secrets = [
        EgressSecret(name=f"N{at}", placeholder=one, value=f"value-{at:010}", hosts=("a.example",), places=places)
        for at, one in enumerate(_PLACEHOLDERS)
    ]
    return Rewriting(Secrets.of(secrets), Destination("a.example", 443, over_tls=True))


@given(st.lists(st.sampled_from([*_PLACEHOLDERS, "c", "cove-secret-", "0", "\n"]), max_size=8), _CUTS)
def test_placeholders_in_pieces_are_filled_like_in_the_whole(parts: list[str], cuts: list[int]) -> None:
    body = "".join(parts).encode()
    rewriting = _rewriting(frozenset({SecretPlace.BODY}))
    head = [("host", "a.example"), ("transfer-encoding", "chunked")]
    rewriting.request(h11.Request(method="POST", target="/", headers=head))
    pieces = [rewriting.body(piece) for piece in _pieces(body, cuts)]
    expected = body
    for at, one in enumerate(_PLACEHOLDERS):
        expected = expected.replace(one.encode(), f"value-{at:010}".encode())
    assert b"".join([*pieces, rewriting.body_end()]) == expected


def test_a_placeholder_in_a_long_body_is_not_left_in_it() -> None:
    rewriting = _rewriting(frozenset({SecretPlace.BODY}))
    head = [("host", "a.example"), ("content-length", str(2 * 1024 * 1024))]
    rewriting.request(h11.Request(method="POST", target="/", headers=head))
    assert not rewriting.buffers_body
    with pytest.raises(Refused, match="in chunks"):
        rewriting.body(b"x" * 100 + _PLACEHOLDERS[0].encode())
