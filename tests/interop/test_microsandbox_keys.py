"""PyPI's `microsandbox` 0.1.8 on a server with keys: `MSB_API_KEY`, namespaces, and what the client raises."""

from collections.abc import Callable, Iterator

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, run_cove, until
from tests.interop.microsandbox_client import Client, Failed, end_all

MakeKey = Callable[..., str]


@pytest.fixture(scope="module")
def make_key(keyed_server: RunningServer) -> Iterator[MakeKey]:
    """`make_key(namespace, expire)`: as the documentation says it is made."""

    def make(namespace: str, expire: str) -> str:
        words = ["keys", "create", "--namespace", namespace, "--expire", expire, "--quiet"]
        made = run_cove(*words, "--data-dir", str(keyed_server.data_dir))
        assert made.returncode == 0, made.stderr
        key = made.stdout.decode().strip()
        assert key.startswith("msb_")
        return key

    yield make
    end_all(keyed_server.url, make("*", "3m"))


@pytest.fixture(scope="module")
def team_key(make_key: MakeKey) -> str:
    return make_key("team-a", "3m")


def _create(client: Client, sandbox: str, **options: str) -> None:
    client.do("create", sandbox, kind="PythonSandbox", **options)


def test_a_key_of_a_namespace_works_there_and_nowhere_else(keyed_server: RunningServer, team_key: str) -> None:
    with Client.started(keyed_server.url, team_key) as client:
        _create(client, "mine", namespace="team-a", name="box")
        assert client.do("run", "mine", code="print(1)")["output"] == "1"
        assert client.do("command", "mine", command="true")["success"] is True
        assert client.do("metrics", "mine")["running"] is True
        with pytest.raises(Failed, match=r"(?s)Failed to start sandbox.*may not enter the namespace.*3001"):
            _create(client, "other", namespace="default", name="box")
        with pytest.raises(Failed, match="1 to 63"):
            _create(client, "other", namespace="*", name="box")


def test_the_same_name_in_two_namespaces_is_two_sandboxes(keyed_server: RunningServer, make_key: MakeKey) -> None:
    with Client.started(keyed_server.url, make_key("*", "3m")) as client:
        for namespace in ("one", "two"):
            _create(client, namespace, namespace=namespace, name="shared")
            client.do("run", namespace, code=f"whose = '{namespace}'")
        for namespace in ("one", "two"):
            assert client.do("run", namespace, code="print(whose)")["output"] == namespace
        _create(client, "again", namespace="one", name="shared")
        assert client.do("run", "again", code="print(whose)")["output"] == "one"
        client.do("stop", "one")
        assert client.do("metrics", "again")["running"] is False
        with pytest.raises(Failed, match="is stopped, not running"):
            client.do("run", "again", code="1")
        assert client.do("run", "two", code="print(whose)")["output"] == "two"


def test_without_a_key_with_a_wrong_one_and_after_its_end(keyed_server: RunningServer, make_key: MakeKey) -> None:
    with (
        Client.started(keyed_server.url) as client,
        pytest.raises(Failed, match=r'Failed to start sandbox.*"code": 1001'),
    ):
        _create(client, "box")
    with Client.started(keyed_server.url, "msb_wrong") as client, pytest.raises(Failed, match='"code": 1004'):
        _create(client, "box")
    short = make_key("default", "1s")
    # Asked without the client, whose own end fails when its key ends between its calls.
    call = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "default"}, "id": 1}
    with httpx2.Client(base_url=keyed_server.url, trust_env=False, verify=False) as http:

        def refused() -> bool:
            answer = http.post("/api/v1/rpc", json=call, headers={"Authorization": f"Bearer {short}"})
            return answer.status_code == 401

        until(refused, seconds=20, what="the key ends")
    with Client.started(keyed_server.url, short) as client, pytest.raises(Failed, match='"code": 1004'):
        _create(client, "box", name="brief")


def test_the_envelope_of_refusals(keyed_server: RunningServer, team_key: str) -> None:
    call = {"jsonrpc": "2.0", "method": "sandbox.metrics.get", "params": {"namespace": "team-a"}, "id": 7}
    with httpx2.Client(base_url=keyed_server.url, trust_env=False, verify=False) as http:
        assert http.get("/api/v1/health").json().keys() == {"message"}
        nobody = http.post("/api/v1/rpc", json=call)
        assert nobody.status_code == 401
        assert nobody.json()["code"] == 1001
        assert nobody.headers["www-authenticate"].startswith("Bearer")
        for name, form in (
            ("Authorization", "Bearer {}"),
            ("Authorization", "{}"),
            ("Proxy-Authorization", "Bearer {}"),
            ("Proxy-Authorization", "{}"),
        ):
            answer = http.post("/api/v1/rpc", json=call, headers={name: form.format(team_key)})
            assert answer.status_code == 200, (name, form, answer.text)
            assert answer.json()["id"] == 7
        headers = {"Authorization": f"Bearer {team_key}"}
        for method in ("sandbox.metrics.get", "sandbox.repl.run", "sandbox.start", "sandbox.stop"):
            params = {"sandbox": "a", "namespace": "other", "code": "1", "language": "python"}
            other = http.post("/api/v1/rpc", json={**call, "method": method, "params": params}, headers=headers)
            assert (other.status_code, other.json()["code"]) == (403, 3001), method
        every = http.post("/api/v1/rpc", json={**call, "params": {"namespace": "*"}}, headers=headers)
        assert (every.status_code, every.json()["code"]) == (403, 3001)
        own = http.post("/api/v1/rpc", json={**call, "params": {}}, headers=headers)
        assert {one["namespace"] for one in own.json()["result"]["sandboxes"]} <= {"team-a"}
