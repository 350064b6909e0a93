"""The protocol's own conformance suite, for both eras: Cove's server as it is, and its whole stack (gateway,
authentication, sessions, the library) with the tools that most scenarios call by name.

What came of it is in RESULT.md; `COVE_WRITE_CONFORMANCE=1` in the environment writes it anew.
"""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.e2e.running_server import RunningServer, data_directory
from tests.interop.mcp.suite import REVISIONS, Scenario, require_node, run_suite, version_of

RESULT = Path(__file__).with_name("RESULT.md")
ROOT = Path(__file__).resolve().parents[3]
NO_DIAGNOSTICS = "calls a diagnostic tool that only a fixture has; it passes there"

# Scenarios that want nothing of a server but the protocol.
WITHOUT_FIXTURE = {
    "2026-07-28": (
        *("server-stateless", "tools-list", "server-sse-multiple-streams", "resources-list"),
        *("sep-2164-resource-not-found", "prompts-list", "dns-rebinding-protection", "caching"),
        *("input-required-result-unsupported-methods", "http-header-validation"),
    ),
    "2025-11-25": (
        *("server-initialize", "ping", "tools-list", "server-sse-multiple-streams", "resources-list", "prompts-list"),
        *("dns-rebinding-protection", "server-session-lifecycle"),
    ),
}
# Checks within them that do want a tool of a certain name.
EXCEPTIONS = {
    "sep-2575-server-rejects-undeclared-capability": NO_DIAGNOSTICS,
    "sep-2575-missing-capability-http-400": NO_DIAGNOSTICS,
    "sep-2575-http-server-no-independent-requests-on-stream": NO_DIAGNOSTICS,
    "sep-2575-server-no-log-without-loglevel": NO_DIAGNOSTICS,
}

# Scenarios that no revision requires, about what Cove does not offer.
NOT_OFFERED = {
    "tasks-": "the tasks extension; long work has tools of its own, and progress",
    "server-sse-polling": "taking up a stream that was lost (2025-11-25); a lost connection ends the call",
}

Results = Mapping[str, Mapping[str, Scenario]]


class FixtureServer(RunningServer):
    """`cove serve` with the tools that the suite calls."""

    program = (sys.executable, str(Path(__file__).with_name("serve_fixture.py")))


@pytest.fixture(scope="module")
def real(server: RunningServer) -> Results:
    require_node()
    return {revision: _run(f"{server.url}/mcp", revision, WITHOUT_FIXTURE[revision]) for revision in REVISIONS}


@pytest.fixture(scope="module")
def stack(built_data_dir: Path) -> Iterator[Results]:
    require_node()
    with data_directory(built_data_dir) as data_dir:
        running = FixtureServer.start(data_dir, "--dev", PYTHONPATH=str(ROOT))
        try:
            yield {revision: _run(f"{running.url}/mcp", revision) for revision in REVISIONS}
        finally:
            running.stop()


def _run(url: str, revision: str, wanted: Sequence[str] = ()) -> Mapping[str, Scenario]:
    """The results; of the scenarios that are `wanted`, by default all that there are, what failed is tried again."""

    def again(scenario: Scenario) -> bool:
        surprising = scenario.failed.keys() - EXCEPTIONS.keys()
        return bool(surprising) and (
            scenario.name in wanted or not (wanted or scenario.name.startswith(tuple(NOT_OFFERED)))
        )

    return run_suite(url, revision, again=again)


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_stack_passes_all_that_the_revision_requires(stack: Results, revision: str) -> None:
    scenarios = stack[revision].values()
    required = [one for one in scenarios if not one.unscored]
    assert len(required) == {"2026-07-28": 37, "2025-11-25": 30}[revision]
    assert {one.name: dict(one.failed) for one in required if one.failed} == {}
    assert sum(one.passed for one in required) > 60
    others = [one.name for one in scenarios if one.failed and one.unscored]
    assert [name for name in others if not name.startswith(tuple(NOT_OFFERED))] == []


@pytest.mark.parametrize("revision", REVISIONS)
def test_the_server_passes_all_that_needs_no_fixture(real: Results, revision: str) -> None:
    for name in WITHOUT_FIXTURE[revision]:
        scenario = real[revision][name]
        assert scenario.passed, name
        assert {check: said for check, said in scenario.failed.items() if check not in EXCEPTIONS} == {}, name


def test_the_exceptions_still_are_some(real: Results) -> None:
    assert real["2026-07-28"]["server-stateless"].failed.keys() == EXCEPTIONS.keys()


def test_the_result_in_the_repository_is_this_one(real: Results, stack: Results) -> None:
    text = _page(real, stack)
    if os.environ.get("COVE_WRITE_CONFORMANCE"):
        RESULT.write_text(text, encoding="utf-8")
    assert RESULT.read_text(encoding="utf-8") == text, "run this test with COVE_WRITE_CONFORMANCE=1"


def _page(real: Results, stack: Results) -> str:
    parts = [
        "# MCP conformance",
        f"`@modelcontextprotocol/conformance` {version_of('@modelcontextprotocol/conformance')} against `cove serve`, "
        "written by `tests/interop/mcp/test_conformance.py`. *Stack*: the whole server, with tools, prompts and "
        "resources that the suite calls by name (`fixture_server.py`) in the place of Cove's. *Server*: Cove as it is, "
        "for the scenarios that need no such fixture. Figures are checks passed of those that ran.",
        *(_table(revision, real[revision], stack[revision]) for revision in REVISIONS),
        "## What does not pass\n\n"
        + "\n".join(
            [
                *(f"- Both, `{name}`: not offered is {why}." for name, why in NOT_OFFERED.items()),
                *(f"- Server, `{check}`: {why}." for check, why in EXCEPTIONS.items()),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _table(revision: str, real: Mapping[str, Scenario], stack: Mapping[str, Scenario]) -> str:
    required = [one for one in stack.values() if not one.unscored]
    passed = sum(not one.failed for one in required)
    lines = [f"## {revision}: {passed} of {len(required)} required scenarios pass", ""]
    lines += ["| scenario | required | stack | server |", "| --- | --- | ---: | ---: |"]
    for name, one in stack.items():
        alone = _figure(real[name]) if name in WITHOUT_FIXTURE[revision] else ""
        lines.append(f"| {name} | {one.unscored or 'yes'} | {_figure(one)} | {alone} |")
    return "\n".join(lines)


def _figure(scenario: Scenario) -> str:
    ran = scenario.passed + len(scenario.failed)
    return f"{scenario.passed}/{ran}" if ran else "skipped"
