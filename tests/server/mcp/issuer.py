"""An authorization server as far as a resource server sees it: metadata, keys, and tokens signed with them."""

import asyncio
import base64
import json
import time
import warnings
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, hmac, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Issuer:
    """Listens on a loopback port. What it answers may be changed while it runs.

    Attributes:
        keys: private keys by their ids.
        asked: paths that were asked for.
        failing: answers everything with 500.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys: dict[str, PrivateKey] = {"rsa": rsa.generate_private_key(65537, 2048)}
        self.asked: list[str] = []
        self.failing = False
        self.metadata: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}/keys"}
        self.padding = ""

    def token(self, *, key: str = "rsa", algorithm: str = "RS256", **claims: Any) -> str:
        """A token that is in order, but for what `claims` change; a claim that is None is left out."""
        return self.signed(self.claims(**claims), self.keys[key], algorithm, {"kid": key, "typ": "at+jwt"})

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Claims of a token that is in order, changed."""
        now = int(time.time())
        every = {
            "iss": self.url,
            "aud": "http://127.0.0.1:5555/mcp",
            "sub": "user-1",
            "iat": now,
            "exp": now + 300,
            "scope": "read exec",
            **changed,
        }
        return {name: value for name, value in every.items() if value is not None}

    def signed(self, claims: Mapping[str, Any], key: Any, algorithm: str, headers: Mapping[str, Any]) -> str:
        """A JWT."""
        with warnings.catch_warnings():
            # One of the keys is too short, to be refused.
            warnings.simplefilter("ignore")
            return jwt.encode(dict(claims), key, algorithm=algorithm, headers=dict(headers))

    def public_pem(self, key: str = "rsa") -> bytes:
        """What everybody knows of a key."""
        encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        return self.keys[key].public_key().public_bytes(encoding, form)

    def with_hmac_of_public_key(self) -> str:
        """Signed with the public key as if it were a shared secret (RFC 8725 §2.1)."""
        head = _encoded({"alg": "HS256", "typ": "at+jwt", "kid": "rsa"})
        text = f"{head}.{_encoded(self.claims())}"
        code = hmac.HMAC(self.public_pem(), hashes.SHA256())
        code.update(text.encode())
        return f"{text}.{_base64(code.finalize())}"

    def unsigned(self) -> str:
        """`alg` is `none`."""
        return f"{_encoded({'alg': 'none', 'typ': 'at+jwt'})}.{_encoded(self.claims())}."

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.asked.append(path)
        documents = {
            "/.well-known/oauth-authorization-server": self.metadata,
            "/keys": {"keys": [_public(name, key) for name, key in self.keys.items()], "padding": self.padding},
        }
        found = None if self.failing else documents.get(path)
        body = json.dumps(found or {}).encode()
        status = "200 OK" if found else "500 Oops" if self.failing else "404 Not Found"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def running_issuer() -> AsyncGenerator[Issuer]:
    """One, for the time of the block."""
    issuers: list[Issuer] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await issuers[0].answer(reader, writer)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        issuers.append(Issuer(server.sockets[0].getsockname()[1]))
        yield issuers[0]


def _public(name: str, key: PrivateKey) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        found = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        found = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        found = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": name, "use": "sig"}


def _encoded(part: Mapping[str, Any]) -> str:
    return _base64(json.dumps(part).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
