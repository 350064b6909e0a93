"""How often an issuer is asked for its keys, and how long they are used."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from cove.models.errors import CoveError, error
from cove.server.mcp.issuer_keys import (
    MAX_AGE_SECONDS,
    MAX_STALE_SECONDS,
    REFRESH_SECONDS,
    IssuerKeys,
    may_be_fetched,
    metadata_urls,
)

pytestmark = pytest.mark.anyio

ISSUER = "https://login.example.com/tenant"


class Documents:
    """What is fetched, and a clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.fetches = 0
        self.down = False
        self.names = ["one"]
        public: Any = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
        self.key: dict[str, Any] = public

    async def fetch(self, url: str) -> Mapping[str, Any]:
        """Implements `Fetch`."""
        await asyncio.sleep(0)
        if url.endswith("/keys"):
            return {"keys": [{**self.key, "kid": name} for name in self.names]}
        self.fetches += 1
        if self.down:
            raise error("HOST_UNAVAILABLE", "down")
        return {"issuer": ISSUER, "jwks_uri": "https://login.example.com/keys"}

    def keys(self) -> IssuerKeys:
        """That fetch here."""
        return IssuerKeys(ISSUER, self.fetch, clock=lambda: self.now)


async def test_many_that_come_at_once_ask_once() -> None:
    documents = Documents()
    keys = documents.keys()
    found = await asyncio.gather(*(keys.find("one", "ES256") for _ in range(20)))
    assert None not in found
    assert documents.fetches == 1


async def test_unknown_keys_ask_again_but_not_often() -> None:
    documents = Documents()
    keys = documents.keys()
    assert await keys.find("one", "ES256")
    documents.names.append("two")
    for _ in range(50):
        assert await keys.find("two", "ES256") is None
    assert documents.fetches == 1
    documents.now += REFRESH_SECONDS
    assert await keys.find("two", "ES256")
    assert documents.fetches == 2


async def test_a_key_that_was_withdrawn_is_honoured_for_a_while_only() -> None:
    documents = Documents()
    keys = documents.keys()
    assert await keys.find("one", "ES256")
    documents.names = ["two"]
    documents.now += MAX_AGE_SECONDS - 1
    assert await keys.find("one", "ES256")
    documents.now += 2
    assert await keys.find("one", "ES256") is None


async def test_keys_outlive_an_issuer_that_is_down_for_a_while_only() -> None:
    documents = Documents()
    keys = documents.keys()
    assert await keys.find("one", "ES256")
    documents.down = True
    documents.now += MAX_STALE_SECONDS - 10
    assert await keys.find("one", "ES256")
    documents.now += 20
    with pytest.raises(CoveError) as caught:
        await keys.find("one", "ES256")
    assert caught.value.code == "HOST_UNAVAILABLE"


async def test_a_key_is_for_its_algorithm_only() -> None:
    keys = Documents().keys()
    assert await keys.find("one", "ES384") is None
    assert await keys.find("one", "RS256") is None
    assert await keys.find(None, "ES256")


def test_metadata_is_looked_for_where_it_may_be() -> None:
    assert metadata_urls("https://a.example") == (
        "https://a.example/.well-known/oauth-authorization-server",
        "https://a.example/.well-known/openid-configuration",
    )
    assert metadata_urls(ISSUER) == (
        "https://login.example.com/.well-known/oauth-authorization-server/tenant",
        "https://login.example.com/.well-known/openid-configuration/tenant",
        "https://login.example.com/tenant/.well-known/openid-configuration",
    )


@pytest.mark.parametrize(
    ("url", "issuer", "may"),
    [
        ("https://keys.example/x", ISSUER, True),
        ("http://keys.example/x", ISSUER, False),
        ("file:///etc/passwd", ISSUER, False),
        ("http://127.0.0.1:9/keys", "http://127.0.0.1:8", True),
        ("http://192.0.2.1/keys", "http://127.0.0.1:8", False),
    ],
)
def test_keys_come_over_https_or_from_this_machine(url: str, issuer: str, may: bool) -> None:
    assert may_be_fetched(url, issuer=issuer) is may
