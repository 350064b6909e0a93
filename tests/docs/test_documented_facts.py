"""Codes, bounds, versions and routes that the documents name are those of the code."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.docs.documents import ROOT

from cove.agent.execution import background
from cove.agent.files import listing, packing, unpacking, watching_tree
from cove.agent.files.watching_queue import MAX_CHANGES
from cove.agent.http import websocket_routes
from cove.agent.http.routes import watch
from cove.agent.http.websocket import Liveness
from cove.agent.terminals import registry, terminal
from cove.core import audit, executions, idempotency, program_steps, template_builds
from cove.core.build_run import STEP_SECONDS
from cove.egress import captured, connections, dialling, journal, resolving
from cove.models import callbacks, egress_rules, frames, network
from cove.models import template_builds as wire
from cove.models.errors import ERRORS
from cove.server import uploads
from cove.server.gateway.dialling import DIAL_SECONDS
from cove.server.gateway.settings import GatewaySettings

SPECIFICATION = (ROOT / "SPECIFICATION.md").read_text(encoding="utf-8")
API = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
COMPATIBILITY = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")
CLIENTS = ROOT / "tests" / "interop" / "clients"
MIB, GIB = 1024**2, 1024**3

_ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \|$", re.M)
_CODE = re.compile(r"^\| `([A-Z_]+)` \| (\d+) \| (yes|no) \|$", re.M)
BOUNDS = dict(_ROW.findall(SPECIFICATION.partition("## Limits and bounds")[2].partition("## Error codes")[0]))


def test_every_code_is_listed_with_its_status() -> None:
    listed = {code: (int(status), again == "yes") for code, status, again in _CODE.findall(SPECIFICATION)}
    assert listed == {code: (row.status, row.retryable) for code, row in ERRORS.items()}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("open at the same time", f"{websocket_routes.MAX_WEBSOCKETS}"),
        ("terminals; watches", f"{registry.MAX_TERMINALS} each"),
        ("terminals; watches", f"{watch.MAX_WATCHES} each"),
        ("message of a client", f"{frames.MAX_FRAME_BYTES // MIB} MiB"),
        ("between two frames to a client", f"{frames.PACE_SECONDS * 1000:g} ms"),
        ("a client that answers no ping", f"{Liveness().ping_seconds:g} s"),
        ("a client that takes no byte", f"{Liveness().stall_seconds:g} s"),
        ("terminal", f"{frames.MAX_COLUMNS} x {frames.MAX_ROWS}"),
        ("terminal", f"{terminal.SCROLLBACK_BYTES // 1024} KiB"),
        ("terminal", f"{registry.DETACHED_SECONDS / 3600:g} hour"),
        ("watch", f"{watching_tree.MAX_DIRECTORIES} directories; {MAX_CHANGES} changes"),
        ("running", f"{background.MAX_RUNNING}"),
        ("kept after their end", f"{background.MAX_KEPT}, for {background.KEPT_SECONDS / 3600:g} hour"),
        ("output in memory, of all together", f"{background.KEPT_BYTES // MIB} MiB"),
        ("entries of an archive", f"{packing.MAX_ENTRIES:,}; out of a sandbox {packing.MAX_BYTES // GIB} GiB"),
        ("entries of an archive", f"{unpacking.MAX_ENTRIES:,}"),
        ("listing that is sorted", f"{listing.SORTED_ENTRIES:,}"),
        ("not ended or not delivered", f"{executions.MAX_OPEN_OF_NAMESPACE} of a namespace, {executions.MAX_OPEN:,}"),
        ("`callback_headers`", f"{callbacks.MAX_HEADERS}, {callbacks.MAX_HEADERS_BYTES // 1024} KiB"),
        ("kept", f"{program_steps.KEPT_RECORDS:,} results or {program_steps.KEPT_RESULT_BYTES // MIB} MiB"),
        (
            "one build; one step",
            f"{template_builds.BUILD_SECONDS / 60:g} minutes; {STEP_SECONDS / 60:g} minutes",
        ),
        ("steps", f"{wire.MAX_STEPS}"),
        ("templates of a namespace", f"{template_builds.MAX_TEMPLATES}"),
        ("archive for COPY", f"{wire.MAX_UPLOAD_BYTES // GIB} GiB"),
        ("archive for COPY", f"{uploads.MAX_FILES_OF_ONE} files, {uploads.MAX_BYTES_OF_ONE // GIB} GiB"),
        ("until a connection inside stands", f"{DIAL_SECONDS:g} s"),
        ("a WebSocket without a byte", f"{GatewaySettings().splice_idle_seconds / 3600:g} hour"),
        ("TLS handshake", f"{GatewaySettings().handshake_seconds:g} s"),
        ("rules of a policy", f"{network.MAX_RULES} to allow, {network.MAX_RULES} to deny"),
        ("rules of a policy", f"{egress_rules.MAX_RULE_CHARACTERS} characters"),
        ("connections; look-ups at the same time", f"{captured.MAX_CONNECTIONS}; {captured.MAX_LOOKUPS}."),
        (
            "until a host is connected; first bytes; a look-up",
            f"{dialling.CONNECT_SECONDS:g} s; {connections.FIRST_BYTES_SECONDS:g} s; {resolving.LOOKUP_SECONDS:g} s",
        ),
        ("entries of the report", f"the latest {journal.KEPT_ENTRIES}"),
        ("entries that wait to be written", f"{audit.MAX_WAITING:,}"),
        ("like requests", f"{audit.BURST} entries"),
        ("`Idempotency-Key`", f"the newest {idempotency.MAX_REMEMBERED:,}"),
    ],
)
def test_bounds_are_those_of_the_code(row: str, words: str) -> None:
    assert words in BOUNDS[row]


@pytest.mark.parametrize(
    ("client", "version"),
    [
        ("`hopx-ai`, synchronous", re.search(r"^hopx-ai==(\S+)", (ROOT / "requirements.lock").read_text(), re.M)),
        ("`hopx-cli`", re.search(r"^hopx-cli==(\S+)", (CLIENTS / "hopx-cli.txt").read_text(), re.M)),
        ("`hopx-mcp`", re.search(r"^hopx-mcp==(\S+)", (CLIENTS / "hopx-mcp.txt").read_text(), re.M)),
        ("`microsandbox`", re.search(r"^microsandbox==(\S+)", (CLIENTS / "microsandbox.txt").read_text(), re.M)),
    ],
)
def test_versions_are_those_that_are_driven(client: str, version: re.Match[str] | None) -> None:
    assert version
    assert re.search(rf"^\| {re.escape(client)}[^|]*\| {re.escape(version[1])} \|", COMPATIBILITY, re.M)


def test_versions_of_javascript_clients() -> None:
    pinned: dict[str, str] = json.loads((CLIENTS / "javascript" / "package.json").read_text())["dependencies"]
    for client, version in pinned.items():
        assert re.search(rf"^\| `{re.escape(client)}`[^|]*\| {re.escape(version)} \|", COMPATIBILITY, re.M), client


def test_routes_that_the_api_page_names_exist() -> None:
    routes = _routes(ROOT / "docs" / "openapi" / "control-plane.json") | _routes(
        ROOT / "docs" / "openapi" / "agent.json"
    )
    named = {(method, _shape(path)) for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^ `?]*)", API)}
    assert len(named) >= 15
    assert named <= routes


def _routes(document: Path) -> set[tuple[str, str]]:
    paths: dict[str, dict[str, Any]] = json.loads(document.read_text(encoding="utf-8"))["paths"]
    return {(method.upper(), _shape(path)) for path, operations in paths.items() for method in operations}


def _shape(path: str) -> str:
    """Whatever the parameters are called."""
    return re.sub(r"\{[^}]*\}", "{}", path)
