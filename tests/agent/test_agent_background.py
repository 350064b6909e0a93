"""Background programs over HTTP, from a real agent."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.agent.conftest import AgentProcess

TYPED = {"content-type": "application/json"}


def started(process: AgentProcess, code: str = "", *, path: str = "/execute/background", **fields: Any) -> str:
    name = "command" if path == "/commands/background" else "code"
    answer = process.client.post(path, json={name: code} | fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "running"
    return answer.json()["process_id"]


def ended(process: AgentProcess, process_id: str) -> dict[str, Any]:
    answer = process.client.get(f"/execute/processes/{process_id}", params={"wait": "20"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] != "running"
    return answer.json()


def lines(process: AgentProcess, process_id: str) -> Iterator[dict[str, Any]]:
    with process.client.stream("GET", f"/execute/processes/{process_id}/events") as answer:
        assert answer.headers["content-type"] == "application/x-ndjson"
        for line in answer.iter_lines():
            yield json.loads(line)


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        threading.Event().wait(0.01)


def test_a_program_from_start_to_result(process: AgentProcess) -> None:
    began = time.monotonic()
    answer = process.client.post(
        "/execute/background", json={"code": "print('hi')", "name": "job", "workdir": None, "timeout": 20}
    )
    assert time.monotonic() - began < 5
    receipt = answer.json()
    assert receipt["process_id"].startswith("proc_")
    assert (receipt["name"], receipt["status"]) == ("job", "running")
    found = ended(process, receipt["process_id"])
    assert {name: found[name] for name in ("status", "exit_code", "stdout", "language", "name", "command")} == {
        "status": "completed",
        "exit_code": 0,
        "stdout": "hi\n",
        "language": "python",
        "name": "job",
        "command": "print('hi')",
    }
    assert found["result"]["stdout"] == "hi\n"
    assert found["start_time"] == found["started_at"] == receipt["start_time"]
    assert found["end_time"] == found["completed_at"]
    assert found["duration"] == found["execution_time"] > 0
    assert ended(process, receipt["execution_id"]) == found


def test_the_list_has_the_newest_first(process: AgentProcess) -> None:
    assert process.client.get("/execute/processes").json()["processes"] == []
    first, second = started(process, "1"), started(process, "sleep 60", language="bash")
    ended(process, first)
    body = process.client.get("/execute/processes").json()
    assert [entry["process_id"] for entry in body["processes"]] == [second, first]
    assert body["count"] == 2
    assert [entry["status"] for entry in body["processes"]] == ["running", "completed"]
    assert [entry["result"] for entry in body["processes"]] == [None, None]
    assert body["processes"][0]["end_time"] is None


def test_commands(process: AgentProcess) -> None:
    for body in (
        {"command": "bash", "args": ["-c", "echo $A $PWD"], "workdir": "/tmp"},
        {"command": "echo $A $PWD", "working_dir": "/tmp"},
    ):
        answer = process.client.post("/commands/background", json=body | {"env": {"A": "1"}, "timeout": 20})
        assert answer.json()["process_id"].startswith("cmd_")
        found = ended(process, answer.json()["process_id"])
        assert (found["stdout"], found["status"]) == ("1 /tmp\n", "completed")


def test_every_way_to_kill(process: AgentProcess) -> None:
    for method, path in (
        ("POST", "/execute/kill/{}"),
        ("DELETE", "/execute/kill/{}"),
        ("DELETE", "/execute/kill?process_id={}"),
        ("POST", "/processes/{}/kill"),
    ):
        process_id = started(process, "import time\nwhile True: time.sleep(60)")
        answer = process.client.request(method, path.format(process_id), headers=TYPED)
        assert answer.status_code == 200
        assert answer.json()["success"] is True
        assert answer.json()["process_id"] == process_id
        assert ended(process, process_id)["status"] == "killed"
        again = process.client.request(method, path.format(process_id), headers=TYPED)
        assert (again.status_code, again.json()["success"]) == (200, True)
        assert "already ended" in again.json()["message"]
        unknown = process.client.request(method, path.format("proc_0"))
        assert (unknown.status_code, unknown.json()["code"]) == (404, "PROCESS_NOT_FOUND")


def test_killing_with_a_signal(process: AgentProcess) -> None:
    for where, named, number in (("body", "USR1", 10), ("body", 12, 12), ("query", 15, 15), ("query", "SIGHUP", 1)):
        process_id = started(process, "sleep 60; echo", path="/commands/background")
        path = f"/execute/kill/{process_id}"
        if where == "body":
            answer = process.client.post(path, json={"signal": named})
        else:
            answer = process.client.post(path, params={"signal": named})
        assert answer.status_code == 200, answer.text
        found = ended(process, process_id)
        assert (found["exit_code"], found["signal"], found["status"]) == (128 + number, number, "killed")


def test_signals_that_are_none(process: AgentProcess) -> None:
    process_id = started(process, "sleep 60", language="bash")
    for text in ("0", '"SIGWHAT"', "true", "1.5", "[]", '""', "-9"):
        body = f'{{"signal": {text}}}'
        answer = process.client.post(f"/execute/kill/{process_id}", content=body, headers=TYPED)
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), body
    answer = process.client.post(f"/execute/kill/{process_id}?signal=")
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert process.client.get(f"/execute/processes/{process_id}").json()["status"] == "running"


def test_killing_by_pid(process: AgentProcess) -> None:
    """Any process of the sandbox but the agent; the root of a program counts as that program."""
    code = "sleep 60 & echo $!; wait; echo over"
    process_id = started(process, code, language="bash")
    part = process.client.get(f"/execute/processes/{process_id}/logs?wait=10").json()
    assert process.client.post(f"/processes/{int(part['text'])}/kill").json()["success"] is True
    assert ended(process, process_id)["status"] == "completed"
    second = started(process, "sleep 60", language="bash")
    pid = process.client.get(f"/execute/processes/{second}").json()["pid"]
    assert process.client.post(f"/processes/{pid}/kill").json()["process_id"] == second
    assert ended(process, second)["status"] == "killed"
    agent = process.client.post(f"/processes/{process.pid}/kill")
    assert (agent.status_code, agent.json()["code"]) == (403, "FORBIDDEN")
    for nobody in (pid, 0, 999_999_999, "999999999999", "-1", "1e3"):
        answer = process.client.post(f"/processes/{nobody}/kill")
        assert (answer.status_code, answer.json()["code"]) == (404, "PROCESS_NOT_FOUND")


def test_kill_lacks_an_id(process: AgentProcess) -> None:
    answer = process.client.delete("/execute/kill")
    assert (answer.status_code, answer.json()["code"]) == (400, "MISSING_PARAMETER")


def test_logs(process: AgentProcess) -> None:
    process_id = started(process, "printf 'a\\342\\230\\203b'; echo err >&2", language="bash")
    ended(process, process_id)

    def logs(**query: Any) -> dict[str, Any]:
        return process.client.get(f"/execute/processes/{process_id}/logs", params=query).json()

    whole = logs()
    assert {name: whole[name] for name in ("stream", "text", "offset", "next_offset", "complete", "status")} == {
        "stream": "stdout",
        "text": "a\N{SNOWMAN}b",
        "offset": 0,
        "next_offset": 5,
        "complete": True,
        "status": "completed",
    }
    assert logs(stream="stderr", offset=1)["text"] == "rr\n"
    assert logs(offset=4)["text"] == "b"
    assert logs(offset=5, wait=30) == logs(offset=5)
    assert logs(offset=5)["complete"] is True


def test_bad_questions(process: AgentProcess) -> None:
    process_id = started(process, "1")
    offsets = ("-1", "x", "1.5", "99999999999999999999", "\u0661")
    waits = ("61", "-1", "nan", "inf", "1e999", "x")
    questions = ["stream=stdin", *(f"offset={text}" for text in offsets), *(f"wait={text}" for text in waits)]
    for query in questions:
        answer = process.client.get(f"/execute/processes/{process_id}/logs?{query}")
        assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST"), query


def test_waiting_for_nothing_is_bounded(process: AgentProcess) -> None:
    process_id = started(process, "sleep 60", language="bash")
    for path in (f"/execute/processes/{process_id}?wait=0.2", f"/execute/processes/{process_id}/logs?wait=0.2"):
        began = time.monotonic()
        body = process.client.get(path).json()
        assert 0.2 <= time.monotonic() - began < 5
        assert body["status"] == "running"


def test_unknown_programs(process: AgentProcess) -> None:
    for path in ("", "/logs", "/events"):
        answer = process.client.get(f"/execute/processes/nope{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "PROCESS_NOT_FOUND")


def test_bad_requests_start_nothing(process: AgentProcess) -> None:
    for path, body, code in (
        ("/execute/background", b"{", "INVALID_JSON"),
        ("/execute/background", b"{}", "MISSING_PARAMETER"),
        ("/execute/background", b'{"code": "1", "timeout": 0}', "INVALID_REQUEST"),
        ("/execute/background", b'{"code": "1", "language": "cobol"}', "UNSUPPORTED_LANGUAGE"),
        ("/execute/background", b'{"code": "1", "execution_id": "../x"}', "INVALID_REQUEST"),
        ("/execute/background", b'{"code": "1", "name": ""}', "INVALID_REQUEST"),
        ("/execute/background", b'{"code": "1", "workdir": "/nowhere"}', "INVALID_PATH"),
        ("/commands/background", b'{"command": ""}', "INVALID_REQUEST"),
        ("/commands/background", b'{"command": "a\\u0000"}', "INVALID_REQUEST"),
        ("/commands/background", b'{"command": "a", "args": "b"}', "INVALID_REQUEST"),
    ):
        answer = process.client.post(path, content=body, headers=TYPED)
        assert 400 <= answer.status_code < 500
        assert answer.json()["code"] == code, body
    assert process.client.get("/execute/processes").json()["count"] == 0


def test_events_are_replayed_then_live(process: AgentProcess) -> None:
    """The program waits for a file that is made only when its first line has arrived."""
    code = "echo first; while [ ! -e gate ]; do sleep 0.01; done; echo second >&2; exit 3"
    process_id = started(process, code, language="bash")
    found: list[dict[str, Any]] = []
    for event in lines(process, process_id):
        found.append(event)
        (process.workspace / "gate").touch()
    assert found[:2] == [{"type": "stdout", "data": "first\n"}, {"type": "stderr", "data": "second\n"}]
    assert (found[2]["type"], found[2]["exit_code"], found[2]["stdout"]) == ("result", 3, "first\n")
    assert list(lines(process, process_id)) == found


def test_leaving_the_events_does_not_end_the_program(process: AgentProcess) -> None:
    code = "echo first; while [ ! -e gate ]; do sleep 0.01; done; echo second"
    process_id = started(process, code, language="bash")
    with process.client.stream("GET", f"/execute/processes/{process_id}/events") as answer:
        next(answer.iter_lines())
    assert process.client.get(f"/execute/processes/{process_id}").json()["status"] == "running"
    (process.workspace / "gate").touch()
    assert ended(process, process_id)["stdout"] == "first\nsecond\n"


def test_events_and_result_agree_on_what_was_cut_off(process: AgentProcess) -> None:
    code = "import sys, time\nsys.stdout.write('\N{SNOWMAN}' * 50000); sys.stdout.flush(); time.sleep(60)"
    process_id = started(process, code, timeout=1, max_output_bytes=100_000)
    found = list(lines(process, process_id))
    result = found[-1]
    assert result["timed_out"]
    for stream in ("stdout", "stderr"):
        assert "".join(event["data"] for event in found if event["type"] == stream) == result[stream]
    assert "timeout: ended after 1 s" in result["stderr"]


def test_the_process_list_knows_them(process: AgentProcess) -> None:
    process_id = started(process, "sleep 60", language="bash", name="job")
    over = started(process, "true", language="bash")
    ended(process, over)
    listed = process.client.get("/processes").json()
    mine = [entry for entry in listed["processes"] if "process_id" in entry]
    assert [(entry["process_id"], entry["background_name"], entry["status"]) for entry in mine] == [
        (process_id, "job", "running")
    ]
    assert mine[0]["command"] == "sleep 60"
    assert listed["count"] == len(listed["processes"]) > 1


def test_jupyter_sessions(process: AgentProcess) -> None:
    process_id = started(process, "import time\ntime.sleep(60)")
    started(process, "sleep 60", language="bash")
    sessions = process.client.get("/jupyter/sessions").json()["sessions"]
    assert [(session["kernel_id"], session["execution_state"]) for session in sessions] == [
        ("python", "idle"),
        (f"bg-{process_id}", "busy"),
    ]
    process.client.post(f"/execute/kill/{process_id}")
    assert len(process.client.get("/jupyter/sessions").json()["sessions"]) == 1


def test_told_in_health_and_metrics(process: AgentProcess) -> None:
    assert process.client.get("/health").json()["features"]["background"] is True
    assert "POST /execute/background" in process.client.get("/info").json()["endpoints"].values()
    process_id = started(process, "sleep 60", language="bash")
    metrics = process.client.get("/metrics/snapshot").json()
    assert (metrics["active_executions"], metrics["total_executions"]) == (1, 1)
    process.client.post(f"/execute/kill/{process_id}")
    until(lambda: process.client.get("/metrics").json()["active_executions"] == 0)


def test_a_flood_does_not_grow_the_agent(process: AgentProcess) -> None:
    """Eight programs print 128 MiB, half of it in lines of 16 MiB, and nobody reads."""

    def resident() -> int:
        with open(f"/proc/{process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    ended(process, started(process, "true", language="bash"))
    before = resident()
    flood = "head -c 16777216 /dev/zero | tr '\\0' '{}'"
    ids = [started(process, flood.format("x" if n % 2 else "\\n"), language="bash", timeout=60) for n in range(8)]
    found = [ended(process, process_id) for process_id in ids]
    for entry in found:
        os.unlink(entry["result"]["stdout_file"])
    assert [entry["result"]["stdout_truncated"] for entry in found] == [True] * 8
    assert resident() - before < 40 * 1024 * 1024


def test_the_end_of_the_agent_ends_them(process: AgentProcess) -> None:
    process_id = started(process, "trap '' TERM; sleep 60 & wait; sleep 60", language="bash")
    pid = process.client.get(f"/execute/processes/{process_id}").json()["pid"]
    assert process.end() == 0
    until(lambda: not os.path.exists(f"/proc/{pid}"))
