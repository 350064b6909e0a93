"""`hopx_ai.Sandbox`: create, find, change, end; templates; what it raises when that fails."""

import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, run_cove
from tests.interop import hopx

Sandbox, errors = hopx.client.Sandbox, hopx.errors
There = dict[str, Any]


@contextmanager
def several(there: There, number: int) -> Generator[list[Any]]:
    made: list[Any] = []
    try:
        made += [Sandbox.create("base", timeout_seconds=60, **there) for _ in range(number)]
        yield made
    finally:
        for sandbox in made:
            sandbox.kill()


def ids(sandboxes: Any) -> set[str]:
    return {sandbox.sandbox_id for sandbox in sandboxes}


def test_the_server_says_that_it_is_healthy(server: RunningServer) -> None:
    assert Sandbox.health_check(base_url=server.url)["status"] == "healthy"


def test_a_template_is_found_by_name_and_by_id(there: There) -> None:
    by_name = Sandbox.get_template("code-interpreter", **there)
    by_id = Sandbox.get_template(by_name.id, **there)
    assert by_name.id.isdigit()
    assert by_id.name == by_name.name == "code-interpreter"
    assert by_name.is_active
    assert "python" in by_name.features


def test_templates_are_listed_and_filtered(there: There) -> None:
    assert {"base", "code-interpreter"} <= {template.name for template in Sandbox.list_templates(**there)}
    assert Sandbox.list_templates(category="no-such-category", **there) == []
    assert "code-interpreter" in {template.name for template in Sandbox.list_templates(language="python", **there)}


def test_a_template_that_does_not_exist(there: There) -> None:
    with pytest.raises(errors.NotFoundError) as raised:
        Sandbox.get_template("no-such-template", **there)
    assert raised.value.code == "TEMPLATE_NOT_FOUND"


def test_create_from_a_template_by_id(there: There) -> None:
    template = Sandbox.get_template("base", **there)
    with Sandbox.create(template_id=template.id, timeout_seconds=60, **there) as sandbox:
        info = sandbox.get_info()
        assert (info.template_id, info.template_name, info.status) == (template.id, "base", "running")


def test_create_from_a_misspelt_template_suggests_the_right_one(there: There) -> None:
    with pytest.raises(errors.TemplateNotFoundError) as raised:
        Sandbox.create("code-interpretr", **there)
    assert raised.value.suggested_template == "code-interpreter"
    assert {"base", "code-interpreter"} <= set(raised.value.available_templates)
    assert raised.value.request_id


def test_create_from_an_unknown_id(there: There) -> None:
    with pytest.raises(errors.NotFoundError):
        Sandbox.create(template_id="999999", **there)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout_seconds": -1},
        {"timeout_seconds": 10**12},
        {"env_vars": {"A=B": "1"}},
        {"env_vars": {"A": "nul\0"}},
    ],
)
def test_create_with_bad_values_makes_nothing(there: There, options: There) -> None:
    before = ids(Sandbox.list(**there))
    with pytest.raises(errors.ValidationError) as raised:
        Sandbox.create("base", **options, **there)
    assert raised.value.code == "INVALID_REQUEST"
    assert ids(Sandbox.list(**there)) == before


def test_a_context_manager_ends_its_sandbox(there: There, server: RunningServer) -> None:
    with Sandbox.create("base", timeout_seconds=60, **there) as sandbox:
        assert sandbox.run_code("print(1)").stdout == "1\n"
        traces = server.traces(sandbox.sandbox_id)
    with pytest.raises(errors.NotFoundError):
        sandbox.get_info()
    assert traces.present() == []


def test_info_has_the_types_that_the_client_wants(there: There) -> None:
    with Sandbox.create("base", timeout_seconds=90, region="here", **there) as sandbox:
        info = sandbox.get_info()
        assert re.fullmatch(r"[0-9]{10}[a-z0-9]{8}", info.sandbox_id)
        assert info.public_host.startswith(there["base_url"])
        assert info.direct_url == info.public_host
        assert info.timeout_seconds == 90
        assert info.resources.vcpu >= 1
        assert info.resources.memory_mb >= 64
        assert abs(info.expires_at - datetime.now(UTC) - timedelta(seconds=90)) < timedelta(seconds=5)
        assert abs(info.created_at - datetime.now(UTC)) < timedelta(seconds=5)
        assert isinstance(info.internet_access, bool)


def test_time_to_expiry_and_health(there: There) -> None:
    with Sandbox.create("base", timeout_seconds=90, **there) as sandbox:
        assert 80 < sandbox.get_time_to_expiry() <= 90
        assert sandbox.is_expiring_soon()
        assert not sandbox.is_expiring_soon(threshold_seconds=10)
        assert sandbox.is_healthy()
        sandbox.ensure_healthy()
        sandbox.set_timeout(1000)
        assert 990 < sandbox.get_time_to_expiry() <= 1000
        sandbox.set_timeout(0)
        assert sandbox.get_info().expires_at is None


def test_a_negative_timeout_is_refused_and_changes_nothing(sandbox: Any) -> None:
    before = sandbox.get_info().expires_at
    with pytest.raises(errors.ValidationError):
        sandbox.set_timeout(-5)
    assert sandbox.get_info().expires_at == before


def test_connect_finds_the_same_sandbox_with_its_state(there: There, sandbox: Any) -> None:
    sandbox.run_code("remembered = 'still here'")
    again = Sandbox.connect(sandbox.sandbox_id, **there)
    assert again.run_code("print(remembered)").stdout == "still here\n"


def test_connect_resumes_a_paused_sandbox(there: There) -> None:
    with Sandbox.create("code-interpreter", timeout_seconds=60, **there) as sandbox:
        sandbox.run_code("number = 42")
        sandbox.pause()
        sandbox.pause()
        assert sandbox.get_info().status == "paused"
        again = Sandbox.connect(sandbox.sandbox_id, **there)
        assert again.get_info().status == "running"
        again.resume()
        assert again.run_code("print(number)").stdout == "42\n"


def test_a_paused_sandbox_answers_calls_at_once_with_what_to_do(there: There) -> None:
    with Sandbox.create("base", timeout_seconds=60, **there) as sandbox:
        sandbox.run_code("print(1)")
        sandbox.pause()
        started = time.monotonic()
        for call in (lambda: sandbox.run_code("print(1)"), lambda: sandbox.files.list("/")):
            with pytest.raises(errors.HopxError) as raised:
                call()
            assert (raised.value.status_code, raised.value.code) == (409, "INVALID_STATE")
            assert "is paused: resume it first" in str(raised.value)
        assert time.monotonic() - started < 5
        sandbox.resume()
        assert sandbox.run_code("print(2)").stdout == "2\n"


def test_a_stopped_sandbox(there: There) -> None:
    """The client has no methods for it: it is stopped by whoever asked for that over plain REST."""
    with Sandbox.create("base", timeout_seconds=600, env_vars={"KEPT": "yes"}, region="here", **there) as sandbox:
        sandbox.files.write("/workspace/note.txt", "kept")
        address = f"{there['base_url']}/v1/sandboxes/{sandbox.sandbox_id}"
        for _ in range(2):
            answer = httpx2.post(
                f"{address}/stop", headers={"Content-Type": "application/json"}, timeout=30, verify=False
            )
            assert answer.json().items() >= {"id": sandbox.sandbox_id, "status": "stopped"}.items()
        before = sandbox.get_info()
        assert (before.status, before.region, before.timeout_seconds) == ("stopped", "here", 600)
        with pytest.raises(errors.HopxError, match="stopped"):
            Sandbox.connect(sandbox.sandbox_id, **there)
        with pytest.raises(errors.HopxError, match="stopped: start it first"):
            sandbox.run_code("print(1)")
        with pytest.raises(errors.APIError, match="cannot resume"):
            sandbox.resume()
        sandbox.refresh_token()
        sandbox.set_timeout(900)
        assert sandbox.sandbox_id in ids(Sandbox.list(status="stopped", **there))
        assert sandbox.sandbox_id not in ids(Sandbox.list(status="running", **there))
        assert httpx2.post(f"{address}/start", timeout=30, verify=False).json()["status"] == "running"
        assert sandbox.files.read("/workspace/note.txt") == "kept"
        assert sandbox.run_code("import os; print(os.environ['KEPT'])").stdout == "yes\n"
        assert 890 < sandbox.get_time_to_expiry() <= 900
        httpx2.post(f"{address}/stop", timeout=30, verify=False)


def test_tokens_are_refreshed_whatever_the_state(there: There) -> None:
    with Sandbox.create("base", timeout_seconds=60, **there) as sandbox:
        address = f"{there['base_url']}/v1/sandboxes/{sandbox.sandbox_id}"
        for action in ("start", "pause", "resume", "stop", "start"):
            assert httpx2.post(f"{address}/{action}", timeout=30, verify=False).status_code == 200
            answer = httpx2.post(
                f"{address}/token/refresh", headers={"Content-Type": "application/json"}, verify=False
            ).json()
            assert answer["auth_token"].count(".") == 2
            assert re.fullmatch(r"[-0-9]{10}T[:0-9]{8}(\.[0-9]{3}|\.[0-9]{6})?Z", answer["token_expires_at"])
        headers = {"Authorization": f"Bearer {answer['auth_token']}"}
        assert httpx2.get(f"{sandbox.get_info().public_host}/info", headers=headers, verify=False).status_code == 200


def test_what_older_clients_send_is_taken(there: There) -> None:
    """An integer as the id of a template; sizes that the service has ignored since 2025, as this server does."""
    template = Sandbox.get_template("base", **there)
    body = {"template_id": int(template.id), "vcpu": 64, "memory_mb": 1, "disk_gb": 10**6, "timeout_seconds": 60}
    made = httpx2.post(f"{there['base_url']}/v1/sandboxes", json=body, timeout=30, verify=False)
    assert made.status_code == 201, made.text
    try:
        assert made.json()["template_name"] == "base"
        assert made.json()["resources"] == {"vcpu": 2, "memory_mb": 1024, "disk_mb": 2048}
    finally:
        httpx2.delete(f"{there['base_url']}/v1/sandboxes/{made.json()['id']}")


def test_regions_are_told_back_and_filtered_by(there: There) -> None:
    with several(there, 1) as plain, Sandbox.create("base", timeout_seconds=60, region="eu-1", **there) as regional:
        assert regional.get_info().region == "eu-1"
        assert ids(Sandbox.list(region="eu-1", **there)) == {regional.sandbox_id}
        assert ids(Sandbox.list(region="eu-1", status="paused", **there)) == set()
        assert ids(plain) & ids(Sandbox.list(region="eu-1", **there)) == set()


def test_a_page_that_is_not_the_last_has_a_cursor(there: There) -> None:
    with several(there, 3) as made:
        seen: set[str] = set()
        cursor: str | None = None
        for _ in range(1000):
            parameters = {"limit": 1} | ({"cursor": cursor} if cursor else {})
            page = httpx2.get(f"{there['base_url']}/v1/sandboxes", params=parameters, verify=False).json()
            assert page["object"] == "list"
            assert page["has_more"] == (page["next_cursor"] is not None)
            seen |= {one["id"] for one in page["data"]}
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert ids(made) <= seen


@pytest.mark.parametrize("sandbox_id", ["1763382095aaaaaaaa", "nope", "..%2f..", "a" * 300])
def test_connect_to_what_does_not_exist(there: There, sandbox_id: str) -> None:
    with pytest.raises(errors.NotFoundError):
        Sandbox.connect(sandbox_id, **there)


def test_list_and_iter(there: There) -> None:
    with several(there, 3) as made:
        assert ids(made) <= ids(Sandbox.list(**there))
        assert ids(made) <= ids(Sandbox.list(status="running", **there))
        assert ids(Sandbox.list(status="paused", **there)) & ids(made) == set()
        assert len(Sandbox.list(limit=2, **there)) == 2
        assert ids(made) <= ids(Sandbox.iter(**there))
        assert ids(Sandbox.iter(region="no-such-region", **there)) == set()
    assert ids(Sandbox.list(**there)) & ids(made) == set()


def test_iter_goes_through_all_pages(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client asks for 100 a page; here the same loop is made to ask for 2, on the wire."""
    transport = hopx.http.HTTPClient
    asked: list[dict[str, Any]] = []
    get = transport.get

    def two_a_page(self: Any, path: str, **options: Any) -> Any:
        if options.get("params", {}).get("limit") == 100:
            options["params"]["limit"] = 2
            asked.append(dict(options["params"]))
        return get(self, path, **options)

    with several(there, 5) as made:
        monkeypatch.setattr(transport, "get", two_a_page)
        found = [sandbox.sandbox_id for sandbox in Sandbox.iter(**there)]
    assert ids(made) <= set(found)
    assert len(found) == len(set(found))
    assert len(asked) >= 3
    assert all("cursor" in request for request in asked[1:])


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 10**9}, {"status": "no-such-status"}])
def test_a_list_that_cannot_be(there: There, options: There) -> None:
    with pytest.raises(errors.ValidationError):
        Sandbox.list(**options, **there)


def test_kill_ends_it_once(there: There, server: RunningServer) -> None:
    sandbox = Sandbox.create("base", timeout_seconds=60, **there)
    assert sandbox.run_code("print(1)").success
    traces = server.traces(sandbox.sandbox_id)
    sandbox.kill()
    assert traces.present() == []
    with pytest.raises(errors.NotFoundError) as raised:
        sandbox.kill()
    assert "killed" in raised.value.message
    with pytest.raises(errors.AgentError) as refused:
        sandbox.run_code("print(1)")
    assert refused.value.status_code == 404


def test_refreshed_tokens_open_the_same_sandbox(sandbox: Any) -> None:
    first = sandbox.get_token()
    sandbox.refresh_token()
    assert hopx.token_cache.get_cached_token(sandbox.sandbox_id).expires_at > datetime.now(UTC) + timedelta(hours=1)
    for token in (first, sandbox.get_token()):
        answer = httpx2.get(
            f"{sandbox.get_info().public_host}/info", headers={"Authorization": f"Bearer {token}"}, verify=False
        )
        assert answer.json()["vm_id"] == sandbox.sandbox_id


def test_a_token_that_is_not_valid_any_more_is_refreshed_once(there: There, server: RunningServer) -> None:
    with Sandbox.create("base", timeout_seconds=60, **there) as sandbox:
        sandbox.run_code("print(1)")
        sandbox._agent_client.update_jwt_token("eyJ.not.valid")
        refreshes = server.log.read_text().count("/token/refresh")
        assert sandbox.run_code("print(2)").stdout == "2\n"
        assert server.log.read_text().count("/token/refresh") == refreshes + 1


def test_debug_talks_to_the_agent_without_a_control_plane(sandbox: Any) -> None:
    direct = Sandbox.debug(sandbox.get_info().public_host, sandbox.get_token())
    assert direct.run_code("print('direct')").stdout == "direct\n"


def test_a_wrong_key(keyed_server: RunningServer) -> None:
    with pytest.raises(errors.AuthenticationError) as raised:
        Sandbox.create("base", base_url=keyed_server.url, api_key="hopx_live_000000000000." + "x" * 43)
    assert (raised.value.status_code, raised.value.code) == (401, "AUTHENTICATION_REQUIRED")
    with pytest.raises(errors.AuthenticationError):
        Sandbox.list(base_url=keyed_server.url, api_key="nonsense")


def test_the_key_of_cove_keys_create(keyed_server: RunningServer) -> None:
    made = run_cove("keys", "create", "interop", "--quiet", "--data-dir", str(keyed_server.data_dir))
    key = made.stdout.decode().strip()
    with Sandbox.create("base", timeout_seconds=60, base_url=keyed_server.url, api_key=key) as sandbox:
        assert sandbox.run_code("print(1)").stdout == "1\n"
        assert ids(Sandbox.list(base_url=keyed_server.url, api_key=key)) == {sandbox.sandbox_id}


def test_no_server_there(there: There) -> None:
    with pytest.raises(errors.NetworkError):
        Sandbox.health_check(base_url="http://127.0.0.1:9")
