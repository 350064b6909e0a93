# Generated from tests/sdk/test_async_sandbox.py by tools/generate_sync_sdk.py. Do not edit.

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from cove import Sandbox
from cove.models.errors import Conflict, InvalidRequest, NotFound
from cove.models.isolation import Isolation
from cove.models.sandboxes import SandboxStatus
from cove.sdk import ControlPlane

if TYPE_CHECKING:
    from tests.sdk.conftest import Planes


def test_create_run_and_kill_take_one_request_each(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run_code("print(1)")
        assert result.stdout == "print(1)"
        assert result.success
        assert sandbox.sandbox_id in planes.sandboxes
        assert sandbox.isolation is Isolation.NAMESPACE
    assert planes.paths() == [
        "POST /v1/sandboxes",
        f"POST /sandboxes/{sandbox.sandbox_id}/execute/rich",
        f"DELETE /v1/sandboxes/{sandbox.sandbox_id}",
    ]
    assert not planes.sandboxes


def test_create_can_be_used_without_a_block(planes: Planes) -> None:
    sandbox = Sandbox.create("base")
    assert (sandbox.get_info()).status is SandboxStatus.RUNNING
    sandbox.close()
    assert sandbox.sandbox_id in planes.sandboxes
    sandbox.kill()
    sandbox.kill()
    assert not planes.sandboxes


def test_create_sends_what_was_asked_for_and_nothing_else(planes: Planes) -> None:
    sandbox = Sandbox.create(
        "base",
        timeout_seconds=60,
        internet_access=False,
        env_vars={"A": "1"},
        resources={"memory_mb": 256},
        isolation="namespace",
    )
    sandbox.kill()
    (create,) = planes.to("/v1/sandboxes")
    assert create.json() == {
        "template_name": "base",
        "timeout_seconds": 60,
        "internet_access": False,
        "env_vars": {"A": "1"},
        "resources": {"memory_mb": 256},
        "isolation": "namespace",
    }
    assert create.headers["x-api-key"] == planes.api_key
    assert len(create.headers["idempotency-key"]) == 32


def test_names_and_namespaces_are_sent_to_the_control_plane_only(planes: Planes) -> None:
    with Sandbox.create("base", name="one", namespace="team") as sandbox:
        sandbox.run_code("1")
        for found in Sandbox.list(name="one", namespace="team"):
            found.close()
        (Sandbox.connect(sandbox.sandbox_id, namespace="team")).close()
    create, listed = planes.to("/v1/sandboxes")
    assert create.json() == {"template_name": "base", "name": "one"}
    assert listed.query["name"] == "one"
    for seen in planes.seen:
        to_agent = seen.path.startswith("/sandboxes/")
        assert seen.headers.get("x-cove-namespace") == (None if to_agent else "team")
    with pytest.raises(InvalidRequest, match="name"):
        Sandbox.create("base", name="a b")


def test_default_template(planes: Planes) -> None:
    (Sandbox.create()).kill()
    (Sandbox.create(template_id=7)).kill()
    first, second = planes.to("/v1/sandboxes")
    assert first.json() == {"template_name": "code-interpreter"}
    assert second.json() == {"template_id": "7"}
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_the_key_never_goes_to_the_agent_nor_the_token_to_the_control_plane(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        sandbox.run_code("1")
        sandbox.get_info()
    for seen in planes.seen:
        to_agent = seen.path.startswith("/sandboxes/")
        assert ("x-api-key" in seen.headers) is not to_agent
        assert ("authorization" in seen.headers) is to_agent


def test_run_code_passes_every_argument(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        sandbox.run_code("x", language="bash", timeout=5, env={"K": "v"}, working_dir=Path("/tmp"), max_output_bytes=10)
    (seen,) = planes.to("/execute/rich")
    assert seen.json() == {
        "code": "x",
        "language": "bash",
        "timeout": 5.0,
        "workdir": "/tmp",
        "env": {"K": "v"},
        "capture_rich": True,
        "max_output_bytes": 10,
    }


def test_a_failing_program_is_a_result(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run_code("raise")
    assert (result.exit_code, result.success) == (1, False)


def test_a_figure_can_be_saved(planes: Planes, tmp_path: Path) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.run_code("plot")
    saved = result.save_png(tmp_path / "plot.png")
    assert saved.read_bytes() == b"\x89PNG\r\n\x1a\n"
    assert result.png_images == (b"\x89PNG\r\n\x1a\n",)
    assert result.json_output == {"a": 1}


def test_a_missing_figure_is_said(tmp_path: Path, planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        result = (sandbox.run_code("plot")).model_copy(update={"png": None})
    with pytest.raises(NotFound, match="no figure"):
        result.save_png(tmp_path / "plot.png")
    assert not (tmp_path / "plot.png").exists()


def test_commands(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        result = sandbox.commands.run("ls | wc -l", timeout=3, env={"A": "b"}, working_dir="/tmp")
    assert result.stdout == "ls | wc -l"
    (seen,) = planes.to("/commands/run")
    sent = seen.json()
    assert (sent["command"], sent["timeout"], sent["workdir"], sent["env"]) == ("ls | wc -l", 3.0, "/tmp", {"A": "b"})
    assert "args" not in sent


def test_environment(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        assert sandbox.env.set_all({"A": "1"}) == {"A": "1"}
        assert sandbox.env.update({"B": "2"}) == {"A": "1", "B": "2"}
        sandbox.env.set("C", "3")
        sandbox.env.delete("A")
        sandbox.env.delete("never set")
        assert sandbox.env.get_all() == {"B": "2", "C": "3"}
        assert sandbox.env.get("A", "none") == "none"
        assert sandbox.env.get("B") == "2"
    assert planes.env == {"B": "2", "C": "3"}


def test_what_the_agent_says_of_itself(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        assert (sandbox.get_agent_info()).vm_id == sandbox.sandbox_id
        assert [entry.pid for entry in sandbox.list_system_processes()] == [1]
        assert sandbox.get_metrics_snapshot() == {"uptime_seconds": 1.5}
        assert sandbox.agent_url == f"{planes.url}/sandboxes/{sandbox.sandbox_id}"


def test_pause_resume_and_timeout(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        sandbox.pause()
        assert (sandbox.get_info()).status is SandboxStatus.PAUSED
        sandbox.resume()
        assert (sandbox.get_info()).status is SandboxStatus.RUNNING
        assert (sandbox.set_timeout(90)).timeout_seconds == 90


def test_connect_gets_a_token_at_first_use_and_keeps_it(planes: Planes) -> None:
    sandbox_id = planes.add()["id"]
    sandbox = Sandbox.connect(sandbox_id)
    assert planes.tokens_issued == 0
    sandbox.run_code("1")
    sandbox.run_code("2")
    assert sandbox.get_token() == "token-1"
    sandbox.close()
    assert planes.tokens_issued == 1


def test_connect_resumes_a_paused_sandbox(planes: Planes) -> None:
    sandbox_id = planes.add(status="paused")["id"]
    sandbox = Sandbox.connect(sandbox_id)
    sandbox.close()
    assert planes.sandboxes[sandbox_id]["status"] == "running"
    assert sandbox.info.status is SandboxStatus.RUNNING


def test_connect_refuses_a_sandbox_that_does_not_run(planes: Planes) -> None:
    sandbox_id = planes.add(status="stopped")["id"]
    with pytest.raises(Conflict, match="stopped"):
        Sandbox.connect(sandbox_id)


def test_an_expired_token_is_renewed_once_and_the_code_runs_once(planes: Planes) -> None:
    with Sandbox.create() as sandbox:
        planes.valid_tokens.clear()
        assert (sandbox.run_code("print(1)")).success
        assert planes.tokens_issued == 2
        statuses = [seen.headers["authorization"] for seen in planes.to("/execute/rich")]
        assert statuses == ["Bearer token-1", "Bearer token-2"]


def test_list_and_iter(planes: Planes) -> None:
    ids = [planes.add()["id"] for _ in range(5)] + [planes.add(status="paused")["id"]]
    listed = Sandbox.list(limit=3)
    assert [sandbox.sandbox_id for sandbox in listed] == ids[:3]
    control = ControlPlane()
    page = control.page(limit=4)
    rest = control.page(limit=4, cursor=page.next_cursor)
    control.close()
    assert [info.id for info in (*page.data, *rest.data)] == ids
    assert [sandbox.sandbox_id for sandbox in Sandbox.iter(status="paused")] == ids[5:]


def test_iter_goes_through_all_pages(planes: Planes) -> None:
    ids = [planes.add()["id"] for _ in range(99)] + [planes.add(id="1763382099zzzzzzz" + c)["id"] for c in "abc"]
    assert [sandbox.sandbox_id for sandbox in Sandbox.iter()] == ids
    assert len(planes.to("/v1/sandboxes")) == 2


def test_templates_and_health(planes: Planes) -> None:
    assert [template.name for template in Sandbox.list_templates(language="python")] == ["code-interpreter"]
    assert (Sandbox.get_template("1")).name == "code-interpreter"
    assert (Sandbox.health_check())["status"] == "healthy"
    with pytest.raises(NotFound, match="no template"):
        Sandbox.get_template("a/../b?c=d")
    assert planes.seen[-1].path == "/v1/templates/a/../b?c=d"


def test_delete(planes: Planes) -> None:
    sandbox_id = planes.add()["id"]
    Sandbox.delete(sandbox_id)
    with pytest.raises(NotFound):
        Sandbox.delete(sandbox_id)


def test_a_unix_socket_carries_both_planes(planes: Planes) -> None:
    with Sandbox.create(base_url=f"http+unix://{planes.socket_path}") as sandbox:
        assert (sandbox.run_code("1")).success
    assert [seen.headers["host"] for seen in planes.to("/v1/sandboxes")] == ["localhost"]


def test_a_given_transport_carries_everything_and_stays_open(planes: Planes, unused_url: str) -> None:
    transport = httpx2.HTTPTransport(uds=planes.socket_path, verify=False)
    for _ in range(2):
        with Sandbox.create(base_url=unused_url, transport=transport) as sandbox:
            assert (sandbox.run_code("1")).success
            (listed,) = Sandbox.list(base_url=unused_url, transport=transport)
            assert (listed.run_code("2")).stdout == "2"
    transport.close()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"template": "base", "template_id": 1}, "template_id"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": 10**9}, "timeout_seconds"),
        ({"env_vars": {"A=B": "1"}}, "env_vars"),
        ({"env_vars": {"A": "\0"}}, "env_vars"),
        ({"resources": {"memory_mb": 1}}, "memory_mb"),
        ({"isolation": "hope"}, "isolation"),
        ({"base_url": "ftp://host"}, "base_url"),
        ({"base_url": "http://host:port"}, "base_url"),
        ({"base_url": "http://user:password@host"}, "base_url"),
        ({"base_url": "http+unix://relative"}, "base_url"),
        ({"api_key": "line\nbreak"}, "API key"),
    ],
)
def test_bad_arguments_of_create_reach_no_server(planes: Planes, arguments: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Sandbox.create(**arguments)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert named in str(caught.value)
    assert planes.seen == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"timeout": 1e9}, "timeout"),
        ({"env": {"": "x"}}, "env"),
        ({"working_dir": "a\0b"}, "path"),
        ({"working_dir": ""}, "path"),
        ({"max_output_bytes": -1}, "max_output_bytes"),
        ({"code": "\ud800"}, "UTF-8"),
        ({"language": "\ud800"}, "UTF-8"),
        ({"code": 5}, "code"),
    ],
)
def test_bad_arguments_of_run_code_reach_no_agent(planes: Planes, arguments: dict[str, object], named: str) -> None:
    with Sandbox.create() as sandbox, pytest.raises(InvalidRequest) as caught:
        sandbox.run_code(**{"code": "1", **arguments})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert named in str(caught.value)
    assert planes.to("/execute/rich") == []


@pytest.mark.parametrize("sandbox_id", ["", "../../v1/templates", "1763382095I648uu1o", "1763382095i648uu1o/"])
def test_what_is_no_id_reaches_no_server(planes: Planes, sandbox_id: str) -> None:
    with pytest.raises(InvalidRequest, match="not a sandbox id"):
        Sandbox.connect(sandbox_id)
    assert planes.seen == []
