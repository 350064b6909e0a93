"""Both documents against a real server: requests that fit them, and requests that do not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import data_directory, running_server

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "docs" / "openapi"
RUN_SECONDS = 400.0
MAX_EXAMPLES = 4
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
)


WITHOUT_END = "open_client_lease"
NEVER_SUCCEED = {
    "control-plane.json": {
        # It takes a link that this server has signed, and an image that it has.
        *("upload_archive", "build_template", "build_status", "build_logs", "delete_template"),
        # It takes a token of a session. Nobody can be invited.
        *("refresh_session", "invite_member"),
        # It takes a directory that the operator has allowed.
        "copy_volume",
        # Its answer has no end, so it is not asked for.
        WITHOUT_END,
        # Programs that have not ended, or whose webhook is on its way.
        "redeliver_execution",
        # Kept for the others to work on.
        "delete_sandbox",
    },
    "agent.json": {
        *("execute_stream", "stream", "stream_ipython", "stream_command", "terminal", "watch_files"),
        *("desktop_get", "desktop_post", "desktop_put", "desktop_patch", "desktop_delete"),
        *("end_terminal", "upload_directory"),
    },
}
"""Operations that generated requests may leave without a success; all others must have had one."""


@dataclass
class Served:
    """A server that wants keys, and a key."""

    url: str
    key: str

    def as_caller(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The control plane's answer to the holder of the key."""
        headers = {"X-API-Key": self.key}
        answer = httpx2.request(
            method, self.url + path, headers=headers, json=body, timeout=30, trust_env=False, verify=False
        )
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def sandbox(self, **fields: Any) -> dict[str, Any]:
        """A new one."""
        return self.as_caller("POST", "/v1/sandboxes", {"template_name": "base", **fields})


@pytest.fixture(scope="module")
def served(built_data_dir: Path) -> Iterator[Served]:
    allowing = {"COVE_WEBHOOK_ALLOW": '["127.0.0.1"]'}
    with data_directory(built_data_dir) as data_dir, running_server(data_dir, **allowing) as server:
        prepared = Served(server.url, server.new_key("documents"))
        yield prepared
        # A stopped sandbox outlives the server.
        for sandbox in prepared.as_caller("GET", "/v1/sandboxes?status=stopped")["data"]:
            prepared.as_caller("DELETE", f"/v1/sandboxes/{sandbox['id']}")


@contextmanager
def agent_of(sandbox: dict[str, Any]) -> Generator[Callable[[str, dict[str, Any]], dict[str, Any]]]:
    """Sends POST requests to the sandbox's agent."""
    headers = {"Authorization": f"Bearer {sandbox['auth_token']}"}
    with httpx2.Client(
        base_url=sandbox["public_host"], headers=headers, timeout=30, trust_env=False, verify=False
    ) as client:

        def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()

        yield post


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_the_control_plane_answers_as_its_document_says(served: Served, tmp_path: Path) -> None:
    secrets = {"OPENAI_API_KEY": {"value": "sk-example-0000", "hosts": ["api.example.com"]}}
    sandbox = served.sandbox(secrets=secrets, network={"allow": ["api.example.com"]})
    keys = [served.as_caller("POST", "/auth/api-keys", {"name": name})["api_key"]["id"] for name in ("first", "second")]
    with agent_of(sandbox) as post:
        execution = post("/execute/async", {"code": "print(1)", "callback_url": "http://127.0.0.1:9/"})
    examples = {
        "1763382095i648uu1o": sandbox["id"],
        "exec_8c1d0f3b7a2e4956": execution["execution_id"],
        "3f9c2a7be01d": keys[0],
        "7d20c4a1be93": keys[1],
        "hopx_live_3f9c2a7be01d.the-secret-of-the-key": served.key,
    }
    _expect_no_failure("control-plane.json", served.url, f"X-API-Key: {served.key}", examples, tmp_path)


@pytest.mark.timeout(RUN_SECONDS + 60)
def test_an_agent_answers_as_its_document_says(served: Served, tmp_path: Path) -> None:
    sandbox = served.sandbox()
    with agent_of(sandbox) as post:
        post("/files/write", {"path": "/workspace/notes.txt", "content": "hello\n"})
        examples = {"proc_4be1f0c97d2a": post("/commands/background", {"command": "echo hello"})["process_id"]}
    credential = f"Authorization: Bearer {sandbox['auth_token']}"
    _expect_no_failure("agent.json", sandbox["public_host"], credential, examples, tmp_path)


def _expect_no_failure(document: str, url: str, credential: str, examples: dict[str, str], directory: Path) -> None:
    done = _schemathesis(DOCUMENTS / document, url, credential, examples, directory)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    # Else every answer could have been the same refusal, which is documented everywhere.
    succeeded = set((directory / "successes").read_text().split())
    operations = json.loads((DOCUMENTS / document).read_text())["paths"].values()
    every = {operation["operationId"] for methods in operations for operation in methods.values()}
    assert every - succeeded - NEVER_SUCCEED[document] == set()


def _schemathesis(
    document: Path, url: str, credential: str, examples: dict[str, str], directory: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    words = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--no-color", "run", str(document), "--url", url),
        *("--header", credential, "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing"),
        *("--max-examples", str(MAX_EXAMPLES), "--seed", "1", "--generation-deterministic"),
        *("--exclude-operation-id", WITHOUT_END),
        *("--request-timeout", "20", "--continue-on-failure", "--warnings", "off"),
        *options,
    ]
    hooks = {"SCHEMATHESIS_HOOKS": "generated_requests", "PYTHONPATH": str(Path(__file__).parent)}
    environment = {**os.environ, **hooks, "OPENAPI_REAL_THINGS": json.dumps(examples)}
    environment["OPENAPI_SUCCESSES"] = str(directory / "successes")
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
    base = served.sandbox()["public_host"] if document == "agent.json" else served.url
    with httpx2.Client(base_url=base, timeout=30, trust_env=False, verify=False) as nobody:
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                if operation.get("security", described.get("security")):
                    answer = nobody.request(method, path.replace("{", "").replace("}", ""))
                    assert answer.status_code in (401, 429), (method, path)
                    assert str(answer.status_code) in operation["responses"]
