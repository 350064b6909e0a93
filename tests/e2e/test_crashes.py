"""SIGKILL for each of the programs: sandboxes live on, nobody owns one twice, nothing is orphaned."""

import os
import signal
import time
from contextlib import ExitStack, closing

import httpx2
import pytest
from tests.e2e.conftest import Serve
from tests.e2e.running_server import RunningServer, lives, run_cove, until

from cove import Sandbox
from cove.models.errors import CoveError, NotFound

AGAIN_SECONDS = 20.0


def answer_of(agent_url: str, token: str, code: str) -> str:
    """What `code` prints, asked over plain HTTP with a token from before."""
    headers = {"Authorization": f"Bearer {token}"}
    return httpx2.post(f"{agent_url}/execute", json={"code": code}, headers=headers, timeout=20, verify=False).json()[
        "stdout"
    ]


def creates_again(server: RunningServer) -> None:
    """The server makes sandboxes as if nothing had been."""

    def create() -> bool:
        try:
            with Sandbox.create(base_url=server.url, timeout_seconds=60) as sandbox:
                return sandbox.run_code("print('new')").stdout == "new\n"
        except CoveError as failure:
            assert failure.code in {"HOST_UNAVAILABLE", "TIMEOUT", "NETWORK_ERROR"}, failure
            return False

    until(create, seconds=AGAIN_SECONDS, what="a sandbox can be created again")


def kill_host_daemon(server: RunningServer) -> None:
    """SIGKILL, and wait until another one runs."""
    daemon = server.host_daemon()
    assert daemon
    os.kill(daemon.pid, signal.SIGKILL)

    def replaced() -> bool:
        found = server.host_daemon()
        return found is not None and found != daemon

    until(replaced, seconds=AGAIN_SECONDS, what="the host daemon runs again")


def test_sandboxes_survive_the_death_of_the_server(serve: Serve) -> None:
    server = serve()
    with ExitStack() as clients:
        sandbox = clients.enter_context(closing(Sandbox.create(base_url=server.url, timeout_seconds=600)))
        sandbox.run_code("remembered = 6 * 7")
        paused = clients.enter_context(closing(Sandbox.create("base", base_url=server.url, timeout_seconds=600)))
        paused.pause()
        token, port = sandbox.get_token(), server.url.rpartition(":")[2]
        traces = [server.traces(one.sandbox_id) for one in (sandbox, paused)]
        daemon = server.host_daemon()
        server.kill()
        assert all(trace.present() for trace in traces)

        again = serve("--port", port)
        assert again.url == server.url
        assert again.host_daemon() not in {None, daemon}
        assert answer_of(sandbox.agent_url, token, "print(remembered)") == "42\n"
        connected = clients.enter_context(closing(Sandbox.connect(sandbox.sandbox_id, base_url=again.url)))
        assert connected.run_code("print(remembered + 1)").stdout == "43\n"
        assert connected.info.expires_at == sandbox.info.expires_at
        resumed = clients.enter_context(closing(Sandbox.connect(paused.sandbox_id, base_url=again.url)))
        assert resumed.run_code("print('awake')").stdout == "awake\n"
        creates_again(again)
        for one in (connected, resumed):
            one.kill()
        for trace in traces:
            assert trace.present() == []


def test_a_deadline_that_passed_while_no_server_was_there(serve: Serve) -> None:
    server = serve()
    with closing(Sandbox.create(base_url=server.url, timeout_seconds=600)) as sandbox:
        traces = server.traces(sandbox.sandbox_id)
        expires = sandbox.set_timeout(2).expires_at
        assert expires
        server.kill()
        seconds = expires.timestamp() + 2.0 - time.time()
        until(lambda: not traces.present(), seconds=seconds, what="the host daemon ends it on its own")
        again = serve()
        answer = httpx2.get(f"{again.url}/v1/sandboxes/{sandbox.sandbox_id}", verify=False)
        assert answer.status_code == 404
        assert answer.json()["details"]["end_reason"] == "expired"


def test_sandboxes_survive_the_death_of_the_host_daemon(serve: Serve) -> None:
    server = serve()
    with Sandbox.create(base_url=server.url, timeout_seconds=600) as sandbox:
        sandbox.run_code("remembered = 1")
        traces = server.traces(sandbox.sandbox_id)
        kill_host_daemon(server)
        assert sandbox.run_code("print(remembered)").stdout == "1\n"
        creates_again(server)
        assert sandbox.run_code("print(remembered + 1)").stdout == "2\n"
        assert len(Sandbox.list(base_url=server.url)) == 1
        sandbox.pause()
        sandbox.resume()
        sandbox.kill()
        assert traces.present() == []


def test_sandboxes_survive_the_death_of_both(serve: Serve) -> None:
    server = serve()
    with closing(Sandbox.create(base_url=server.url, timeout_seconds=600)) as sandbox:
        sandbox.run_code("remembered = 'both'")
        token, port = sandbox.get_token(), server.url.rpartition(":")[2]
        traces = server.traces(sandbox.sandbox_id)
        daemon = server.host_daemon()
        assert daemon
        server.kill()
        os.kill(daemon.pid, signal.SIGKILL)
        until(lambda: not lives(daemon), seconds=5, what="the host daemon is dead")
        assert traces.present()

        again = serve("--port", port)
        assert answer_of(sandbox.agent_url, token, "print(remembered)") == "both\n"
        creates_again(again)
        sandbox.kill()
        assert traces.present() == []


def test_a_server_told_to_keep_sandboxes_leaves_them_to_the_next(serve: Serve) -> None:
    server = serve("--keep-sandboxes")
    with closing(Sandbox.create(base_url=server.url, timeout_seconds=600)) as sandbox:
        sandbox.run_code("remembered = 'kept'")
        token, port = sandbox.get_token(), server.url.rpartition(":")[2]
        server.stop()
        assert server.host_daemon() is None
        again = serve("--port", port)
        assert answer_of(sandbox.agent_url, token, "print(remembered)") == "kept\n"
        again.stop()


def test_a_second_server_on_the_same_data_directory_does_no_harm(serve: Serve) -> None:
    server = serve()
    with Sandbox.create(base_url=server.url, timeout_seconds=600) as sandbox:
        sandbox.run_code("remembered = 1")
        options = ("serve", "--dev", "--port", "0", "--pool-size", "1", "--data-dir", str(server.data_dir))
        second = run_cove(*options, seconds=30)
        assert second.returncode == 1
        assert b"--data-dir" in second.stderr
        assert sandbox.run_code("print(remembered)").stdout == "1\n"
        creates_again(server)


@pytest.mark.parametrize("template", ["base", "code-interpreter"])
def test_a_sandbox_whose_first_process_dies(server: RunningServer, api: httpx2.Client, template: str) -> None:
    with Sandbox.create(template, base_url=server.url, timeout_seconds=600) as sandbox:
        sandbox.commands.run("(setsid sleep 1000 >/dev/null 2>&1 &)")
        traces = server.traces(sandbox.sandbox_id)
        record = server.record(sandbox.sandbox_id)
        assert record
        os.kill(record["pid"], signal.SIGKILL)
        until(lambda: not traces.present(), seconds=5, what="nothing is left of it")
        path = f"/v1/sandboxes/{sandbox.sandbox_id}"
        until(lambda: api.get(path).status_code == 404, seconds=10, what="the server knows that it is gone")
        answer = api.get(path)
        assert answer.json()["code"] == "SANDBOX_NOT_FOUND"
        assert answer.json()["details"]["end_reason"] == "crashed"
        assert sandbox.sandbox_id not in api.get("/v1/sandboxes").text
        with pytest.raises(NotFound):
            sandbox.run_code("print(1)")
