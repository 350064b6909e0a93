"""`POST /execute/events`: output as it comes, from a real agent."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import AgentProcess


def events(process: AgentProcess, **body: Any) -> Iterator[dict[str, Any]]:
    with process.client.stream("POST", "/execute/events", json=body) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/x-ndjson"
        for line in answer.iter_lines():
            yield json.loads(line)


def joined(found: list[dict[str, Any]], stream: str) -> str:
    return "".join(event["data"] for event in found if event["type"] == stream)


def test_output_comes_before_the_program_ends(process: AgentProcess, tmp_path: Path) -> None:
    """The program waits for a file that is made only when its first line has arrived."""
    gate = tmp_path / "gate"
    code = f"echo first; while [ ! -e {gate} ]; do sleep 0.01; done; echo second >&2; exit 3"
    found: list[dict[str, Any]] = []
    for event in events(process, code=code, language="bash", timeout=20):
        found.append(event)
        if event == {"type": "stdout", "data": "first\n"}:
            gate.touch()
    assert joined(found, "stdout") == "first\n"
    assert joined(found, "stderr") == "second\n"
    assert [event["type"] for event in found][-1] == "result"
    assert found[-1]["exit_code"] == 3
    assert found[-1]["stdout"] == "first\n"


def test_python_streams_too_and_keeps_its_state(process: AgentProcess) -> None:
    list(events(process, code="value = 41"))
    found = list(events(process, code="print('now'); value + 1"))
    assert joined(found, "stdout") == "now\n42\n"
    assert found[-1]["result"] == "42"


def test_the_texts_of_a_stream_make_up_what_the_result_holds(process: AgentProcess) -> None:
    """Characters cut by the pipe, the mark of truncation and notes of a timeout included."""
    code = "import sys, time\nsys.stdout.write('\N{SNOWMAN}' * 50000); sys.stdout.flush(); time.sleep(60)"
    found = list(events(process, code=code, timeout=1, max_output_bytes=100_000))
    result = found[-1]
    assert result["timed_out"]
    assert result["stdout_truncated"]
    assert joined(found, "stdout") == result["stdout"]
    assert joined(found, "stderr") == result["stderr"]
    assert "timeout: ended after 1 s" in result["stderr"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"code": "1", "language": "cobol"}, 400, "UNSUPPORTED_LANGUAGE"),
        ({"language": "python"}, 400, "MISSING_PARAMETER"),
        ({"code": "1", "timeout": -1}, 400, "INVALID_REQUEST"),
    ],
)
def test_bad_requests_are_refused_before_the_first_event(
    process: AgentProcess, body: dict[str, Any], status: int, code: str
) -> None:
    answer = process.client.post("/execute/events", json=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_closing_the_stream_ends_the_program(process: AgentProcess, tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    code = f"echo started; while true; do date +%s%N > {alive}.new; mv {alive}.new {alive}; sleep 0.01; done"
    for event in events(process, code=code, language="bash", timeout=60):
        assert event["data"] == "started\n"
        break
    deadline = time.monotonic() + 10
    last, since = "", time.monotonic()
    while time.monotonic() - since < 0.5:
        assert time.monotonic() < deadline, "the program goes on"
        now = alive.read_text() if alive.exists() else ""
        if now != last:
            last, since = now, time.monotonic()


def test_a_rehearsal_is_no_execution(process: AgentProcess) -> None:
    assert process.client.post("/rehearsal").json() == {"success": True}
    assert process.client.get("/metrics/snapshot").json()["total_executions"] == 0
    assert process.execute("1 + 1")["result"] == "2"
