"""The conformance suite of the Model Context Protocol: runs it against a server, and reads what it found."""

import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

CLIENTS: Final = Path(__file__).resolve().parents[3] / ".venv" / "clients"
NODE: Final = CLIENTS / "node" / "bin" / "node"
MODULES: Final = CLIENTS / "mcp" / "node_modules"
REVISIONS: Final = ("2026-07-28", "2025-11-25")
SECONDS: Final = 120.0

_SUITE = MODULES / "@modelcontextprotocol" / "conformance"
_DIRECTORY = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
_NOT_SCORED = re.compile(r"^  [✓✗] (\S+) \((\S+)\)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What came of one scenario.

    Attributes:
        passed: checks that went well, warnings of the suite not among them.
        failed: id of each check that did not, with what the suite says; a warning counts as a failure here.
        unscored: why the revision does not require the scenario; empty where it does.
    """

    name: str
    passed: int
    failed: Mapping[str, str]
    unscored: str


def require_node() -> None:
    """Skip where the suite or a Node for it is not installed."""
    if not (NODE.exists() and (CLIENTS / "mcp" / "installed").exists()):
        pytest.skip("the MCP conformance suite is not installed: needs npm, then scripts/interop-clients")


def version_of(package: str) -> str:
    """Of an npm package among the clients."""
    return json.loads((MODULES / package / "package.json").read_text(encoding="utf-8"))["version"]


def run_suite(url: str, revision: str, *, again: Callable[[Scenario], bool]) -> dict[str, Scenario]:
    """All scenarios for servers that the suite has for `revision`, by name, in its order.

    Args:
        again: whether to run a scenario once more by itself. The suite waits 600 ms for some answers, and a machine
            that is busy with other tests is late for that.
    """
    found = _run(url, "--requirements", revision)
    for name, scenario in found.items():
        if again(scenario):
            second = _run(url, "--scenario", name, "--spec-version", revision)[name]
            found[name] = replace(second, unscored=scenario.unscored)
    return found


def _run(url: str, *options: str) -> dict[str, Scenario]:
    with tempfile.TemporaryDirectory(prefix="cove-conformance-") as directory:
        done = subprocess.run(
            [
                *(str(NODE), str(_SUITE / "dist" / "index.js"), "server", "--url", url),
                *(*options, "--output-dir", directory),
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        unscored = dict(_NOT_SCORED.findall(done.stdout))
        paths = [path for path in Path(directory).iterdir() if _DIRECTORY.fullmatch(path.name)]
        scenarios = {_name_of(path): _read(path, _name_of(path), unscored) for path in paths}
    assert scenarios, f"the suite ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
    order = re.findall(r"^=== Running scenario: (\S+) ===$", done.stdout, re.MULTILINE) or [*scenarios]
    return {name: scenarios[name] for name in order}


def _name_of(path: Path) -> str:
    matched = _DIRECTORY.fullmatch(path.name)
    assert matched
    return matched[1]


def _read(path: Path, name: str, unscored: Mapping[str, str]) -> Scenario:
    checks = json.loads((path / "checks.json").read_text(encoding="utf-8"))
    bad = {
        check["id"]: check.get("errorMessage") or "" for check in checks if check["status"] in ("FAILURE", "WARNING")
    }
    good = sum(check["status"] == "SUCCESS" for check in checks)
    return Scenario(name, good, bad, unscored.get(name, ""))
