"""Tokens of agents: only ours, only for agents, only for a while."""

import base64
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cove.core.tokens import LIFETIME_SECONDS, AgentTokens
from cove.models.errors import CoveError
from cove.models.identifiers import new_sandbox_id

KEY = Ed25519PrivateKey.generate()
ID = new_sandbox_id()


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def code_of(tokens: AgentTokens, token: str) -> str:
    with pytest.raises(CoveError) as caught:
        tokens.verify(token)
    return caught.value.code


def test_a_token_names_its_sandbox_for_a_day() -> None:
    clock = Clock()
    tokens = AgentTokens(KEY, clock=clock)
    issued = tokens.issue(ID)
    assert issued.token_expires_at.timestamp() == clock.now + LIFETIME_SECONDS
    assert issued.token_expires_at.microsecond == 0
    assert tokens.verify(issued.auth_token) == ID
    clock.now += LIFETIME_SECONDS - 1
    assert tokens.verify(issued.auth_token) == ID
    clock.now += 1
    assert code_of(tokens, issued.auth_token) == "TOKEN_EXPIRED"
    assert code_of(AgentTokens(KEY, clock=clock), issued.auth_token) == "TOKEN_EXPIRED"


def test_tokens_of_another_key_are_refused() -> None:
    other = AgentTokens(Ed25519PrivateKey.generate(), clock=Clock())
    assert code_of(AgentTokens(KEY, clock=Clock()), other.issue(ID).auth_token) == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other", "sandbox_id": ID, "exp": 2**40},
        {"sandbox_id": ID, "exp": 2**40},
        {"aud": "cove-agent", "exp": 2**40},
        {"aud": "cove-agent", "sandbox_id": ID},
        {"aud": "cove-agent", "sandbox_id": "../../etc", "exp": 2**40},
        {"aud": "cove-agent", "sandbox_id": [ID], "exp": 2**40},
    ],
)
def test_claims_must_all_be_there_and_right(claims: dict[str, object]) -> None:
    token = jwt.encode(claims, KEY, algorithm="EdDSA")
    assert code_of(AgentTokens(KEY, clock=Clock()), token) == "UNAUTHORIZED"


def test_other_algorithms_are_refused() -> None:
    claims = {"aud": "cove-agent", "sandbox_id": ID, "exp": 2**40}
    tokens = AgentTokens(KEY, clock=Clock())

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    assert code_of(tokens, f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}.") == "UNAUTHORIZED"
    secret = KEY.public_key().public_bytes_raw()
    assert code_of(tokens, jwt.encode(claims, secret, algorithm="HS256")) == "UNAUTHORIZED"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ü.é.à", "A" * 100_000, "\0" * 20, "e30.e30.e30"])
def test_garbage_is_refused(token: str) -> None:
    assert code_of(AgentTokens(KEY, clock=Clock()), token) == "UNAUTHORIZED"


def test_a_changed_token_is_refused_even_when_the_true_one_is_remembered() -> None:
    tokens = AgentTokens(KEY, clock=Clock())
    token = tokens.issue(ID).auth_token
    tokens.verify(token)
    head, claims, signature = token.split(".")
    forged = json.loads(base64.urlsafe_b64decode(claims + "=="))
    forged["sandbox_id"] = new_sandbox_id()
    changed = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    assert code_of(tokens, f"{head}.{changed}.{signature}") == "UNAUTHORIZED"


def test_the_key_file_is_private_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "agent-tokens.pem"
    token = AgentTokens.load(path, clock=Clock()).issue(ID).auth_token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert AgentTokens.load(path, clock=Clock()).verify(token) == ID
    assert os.listdir(path.parent) == [path.name]


def test_processes_that_start_together_share_one_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with ThreadPoolExecutor(8) as threads:
        begun = [threads.submit(AgentTokens.load, path, clock=Clock()) for _ in range(8)]
        loaded = [each.result(timeout=10) for each in begun]
    for tokens in loaded:
        assert loaded[0].verify(tokens.issue(ID).auth_token) == ID


def test_a_file_with_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("hello")
    with pytest.raises(CoveError, match="does not hold an Ed25519 key"):
        AgentTokens.load(path, clock=Clock())
