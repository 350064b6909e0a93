"""The server as a process: it serves, it ends, nothing stays."""

from tests.e2e.conftest import Serve

from cove import Sandbox


def test_a_server_that_is_told_to_end_takes_its_sandboxes_with_it(serve: Serve) -> None:
    server = serve()
    sandbox = Sandbox.create(base_url=server.url)
    assert sandbox.run_code("print(6 * 7)").stdout == "42\n"
    traces = server.traces(sandbox.sandbox_id)
    sandbox.close()
    server.stop()
    assert traces.present() == []
