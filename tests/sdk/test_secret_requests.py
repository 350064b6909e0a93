"""What is wrong with a secret is said without it, before anything is sent."""

from functools import partial
from typing import Any

import pytest

from cove.models.errors import CoveError
from cove.models.secrets import SetSandboxSecret, SetVaultSecret
from cove.sdk import SandboxSecret, _requests

VALUE = "sk-live-1234567890"


@pytest.mark.parametrize(
    "secret",
    [
        {"value": VALUE + "\n", "hosts": ["a.example"]},
        {"value": VALUE},
        {"value": VALUE, "from_vault": "kept"},
        {"valeu": VALUE, "hosts": ["a.example"]},
        {"value": [VALUE], "hosts": ["a.example"]},
        VALUE,
    ],
)
def test_creates(secret: Any) -> None:
    with pytest.raises(CoveError) as caught:
        _requests.create(None, template_id=None, secrets={"TOKEN": secret})
    assert caught.value.code == "INVALID_REQUEST"
    assert VALUE not in f"{caught.value}{caught.value.details}{caught.value.__cause__}"


def test_changes() -> None:
    for build in (
        partial(SetVaultSecret, value=VALUE + "\n"),
        partial(SetVaultSecret, value=VALUE, hosts=("*",)),
        partial(SetSandboxSecret, value=VALUE + "\n"),
    ):
        with pytest.raises(CoveError) as caught:
            _requests.with_secrets("PUT", "/v1/secrets/x", build)
        assert VALUE not in f"{caught.value}{caught.value.details}"


def test_values_are_sent_and_not_shown() -> None:
    secret = SandboxSecret(value=VALUE, hosts=("a.example",))
    call = _requests.create(None, template_id=None, secrets={"TOKEN": secret})
    assert VALUE.encode() in (call.content or b"")
    assert VALUE not in f"{secret!r}{secret}{call!r}"
