"""Both documents against a real server: requests that fit them, and requests that do not."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, data_directory, run_cove

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "docs" / "openapi"
RUN_SECONDS = 100.0
MAX_EXAMPLES = 4
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


@dataclass
class Served:
    """A server that wants keys, and two of its sandboxes: one to change the state of, one to work in."""

    url: str
    key: str
    changed: dict[str, Any]
    used: dict[str, Any]
    execution_id: str
    process_id: str
    other_key_id: str

    def as_caller(self, method: str, path: str) -> httpx2.Response:
        """Ask the control plane with the key."""
        return httpx2.request(method, self.url + path, headers={"X-API-Key": self.key}, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def served(built_data_dir: Path) -> Iterator[Served]:
    with data_directory(built_data_dir) as data_dir:
        server = RunningServer.start(data_dir, COVE_WEBHOOK_ALLOW='["127.0.0.1"]')
        try:
            made = run_cove("keys", "create", "documents", "--quiet", "--data-dir", str(data_dir))
            prepared = _prepared(server.url, made.stdout.decode().strip())
            yield prepared
            # A stopped sandbox outlives the server.
            for sandbox in prepared.as_caller("GET", "/v1/sandboxes?status=stopped").json()["data"]:
                prepared.as_caller("DELETE", f"/v1/sandboxes/{sandbox['id']}")
        finally:
            server.stop()


def _prepared(url: str, key: str) -> Served:
    with httpx2.Client(base_url=url, headers={"X-API-Key": key}, timeout=30, trust_env=False) as client:
        changed, used = (_ok(client.post("/v1/sandboxes", json={"template_name": "base"})) for _ in range(2))
        other = _ok(client.post("/auth/api-keys", json={"name": "other"}))
    headers = {"Authorization": f"Bearer {used['auth_token']}"}
    with httpx2.Client(base_url=used["public_host"], headers=headers, timeout=30, trust_env=False) as agent:
        _ok(agent.post("/files/write", json={"path": "/workspace/notes.txt", "content": "hello\n"}))
        started = _ok(agent.post("/commands/background", json={"command": "echo hello"}))
        webhook = {"code": "print(1)", "callback_url": "http://127.0.0.1:9/"}
        execution = _ok(agent.post("/execute/async", json=webhook))
    return Served(url, key, changed, used, execution["execution_id"], started["process_id"], other["api_key"]["id"])


def _ok(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_the_control_plane_answers_as_its_document_says(served: Served, tmp_path: Path) -> None:
    examples = {
        "1763382095i648uu1o": served.changed["id"],
        "exec_8c1d0f3b7a2e4956": served.execution_id,
        "3f9c2a7be01d": served.other_key_id,
    }
    _expect_no_failure("control-plane.json", served.url, f"X-API-Key: {served.key}", examples, tmp_path)
    # Else every answer could have been a 401, which is documented everywhere.
    assert served.as_caller("GET", "/auth/me").status_code == 200


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_an_agent_answers_as_its_document_says(served: Served, tmp_path: Path) -> None:
    used = served.used
    examples = {"proc_4be1f0c97d2a": served.process_id}
    _expect_no_failure(
        "agent.json", used["public_host"], f"Authorization: Bearer {used['auth_token']}", examples, tmp_path
    )


def _expect_no_failure(document: str, url: str, credential: str, examples: dict[str, str], directory: Path) -> None:
    done = _schemathesis(DOCUMENTS / document, url, credential, examples, directory)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " generated, " in done.stdout


def _schemathesis(
    document: Path, url: str, credential: str, examples: dict[str, str], directory: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    words = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", str(document), "--url", url),
        *("--header", credential, "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(MAX_EXAMPLES), "--seed", "1", "--generation-deterministic"),
        *("--request-timeout", "20", "--continue-on-failure", "--warnings", "off"),
        *options,
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "generated_requests", "PYTHONPATH": str(Path(__file__).parent)}
    environment = {**os.environ, **hooks, "OPENAPI_REAL_THINGS": json.dumps(examples)}
    return subprocess.run(
        words, capture_output=True, text=True, timeout=RUN_SECONDS, check=False, env=environment, cwd=directory
    )


def test_answers_that_are_not_in_a_document_are_noticed(served: Served, tmp_path: Path) -> None:
    document = json.loads((DOCUMENTS / "control-plane.json").read_text())
    path = "/v1/sandboxes/{sandbox_id}"
    del document["paths"][path]["get"]["responses"]["404"]
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    done = _schemathesis(
        changed,
        served.url,
        f"X-API-Key: {served.key}",
        {},
        tmp_path,
        "--phases",
        "examples",
        "--include-operation-id",
        "get_sandbox",
    )
    assert done.returncode == 1
    assert "Undocumented status code" in done.stdout


@pytest.mark.parametrize("document", ["control-plane.json", "agent.json"])
def test_without_a_credential_every_operation_is_closed(served: Served, document: str) -> None:
    described = json.loads((DOCUMENTS / document).read_text())
    base = served.used["public_host"] if document == "agent.json" else served.url
    with httpx2.Client(base_url=base, timeout=30, trust_env=False) as nobody:
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                if operation.get("security", described.get("security")):
                    answer = nobody.request(method, path.replace("{", "").replace("}", ""))
                    assert answer.status_code in (401, 429), (method, path)
                    assert str(answer.status_code) in operation["responses"]
