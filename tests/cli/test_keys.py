"""`cove keys create`: kinds of keys, scopes and lifetimes."""

import json
import re
from pathlib import Path

import pytest
from tests.cli.test_namespaces import cove
from typer.testing import CliRunner

from cove.cli.app import app
from cove.models.errors import CoveError

DAY = 86400


def rows(data_dir: Path) -> list[dict[str, str]]:
    return json.loads(cove(data_dir, "keys", "list", "--json"))


def test_without_a_name_a_key_is_for_clients_of_microsandbox(tmp_path: Path) -> None:
    key = cove(tmp_path, "keys", "create", "--namespace", "NS_1", "--expire", "3m", "--quiet").strip()
    assert re.fullmatch(r"msb_[A-Za-z0-9]{12}\.[A-Za-z0-9_-]{43}", key)
    (row,) = rows(tmp_path)
    assert re.fullmatch(r"microsandbox-\d{4}-\d\d-\d\d", row["name"])
    assert row["key"] == key.partition(".")[0] + "..."
    assert row["namespace"] == "NS_1"
    assert row["expires"] != "never"


def test_the_style_can_be_chosen(tmp_path: Path) -> None:
    assert cove(tmp_path, "keys", "create", "a", "--style", "microsandbox", "--quiet").startswith("msb_")
    assert cove(tmp_path, "keys", "create", "a", "--quiet").startswith("hopx_live_")
    assert cove(tmp_path, "keys", "create", "--style", "hopx", "--quiet").startswith("hopx_live_")


def test_scopes_are_given_and_listed(tmp_path: Path) -> None:
    cove(tmp_path, "keys", "create", "ci", "--scope", "exec", "--scope", "read", "--quiet")
    cove(tmp_path, "keys", "create", "all", "--quiet")
    assert [row["scopes"] for row in rows(tmp_path)] == ["read exec", "read exec admin"]
    assert CliRunner().invoke(app, ["keys", "create", "x", "--scope", "root"]).exit_code == 2


def test_a_key_is_revoked_as_it_is_listed(tmp_path: Path) -> None:
    cove(tmp_path, "keys", "create", "--namespace", "*", "--quiet")
    cove(tmp_path, "keys", "revoke", rows(tmp_path)[0]["key"])
    assert [(row["namespace"], row["state"]) for row in rows(tmp_path)] == [("*", "revoked")]


@pytest.mark.parametrize("lifetime", ["0", "0h", "m", "1.5h", "-1h", "3 m", "5x", "1" * 10, "٣m"])
def test_what_is_no_lifetime(tmp_path: Path, lifetime: str) -> None:
    with pytest.raises(CoveError) as caught:
        cove(tmp_path, "keys", "create", "x", f"--expire={lifetime}")
    assert caught.value.code == "INVALID_REQUEST"
    assert rows(tmp_path) == []


@pytest.mark.parametrize(
    ("lifetime", "seconds"),
    [("1s", 1), ("2m", 120), ("3h", 10800), ("3", 10800), ("4d", 4 * DAY), ("5w", 35 * DAY), ("6mo", 180 * DAY),
     ("7y", 2555 * DAY)],
)  # fmt: skip
def test_lifetimes(lifetime: str, seconds: int) -> None:
    from cove.cli.keys import _seconds  # pyright: ignore[reportPrivateUsage]

    assert _seconds(lifetime) == seconds
