"""One server for all attacks; an attacker and a victim for each driver; after each attack both sides are looked at."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.running_server import RunningServer, data_directory, new_key, running_server
from tests.internet import Internet
from tests.internet_servers import NAMESERVER
from tests.security.ground import HOST_SECRET, VICTIM_SECRET, Ground, HostState, make_sandbox
from tests.security.networked import Networked, is_served

DRIVERS = ("namespace", "gvisor")


@pytest.fixture(scope="session")
def attacked(built_data_dir: Path) -> Iterator[RunningServer]:
    """A server that wants keys, with a secret in its environment and one in its data directory."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    options = ("--isolation", "namespace", "--pool-size", "0")
    with data_directory(built_data_dir) as data_dir:
        (data_dir / "marker").mkdir()
        (data_dir / "marker" / "secret").write_text(HOST_SECRET)
        with running_server(data_dir, *options, HOST_SECRET=HOST_SECRET) as server:
            yield server


@pytest.fixture(scope="session")
def keys(attacked: RunningServer) -> tuple[str, str]:
    """Of the attacker's namespace and of the victim's."""
    return new_key(attacked.data_dir, "red", "--namespace", "red"), new_key(
        attacked.data_dir, "blue", "--namespace", "blue"
    )


@pytest.fixture(scope="session", params=DRIVERS)
def shared_ground(request: pytest.FixtureRequest, attacked: RunningServer, keys: tuple[str, str]) -> Iterator[Ground]:
    """Both sandboxes of one driver; the victim has a secret in memory, in a file and in its environment."""
    red, blue = keys
    attacker = make_sandbox(attacked, red, request.param)
    victim = make_sandbox(attacked, blue, request.param, env_vars={"SECRET": VICTIM_SECRET})
    victim.write("/workspace/secret", VICTIM_SECRET)
    victim.execute(f"secret = {VICTIM_SECRET!r}")
    yield Ground(attacked, str(request.param), red, blue, attacker, victim)
    attacker.kill()
    victim.kill()


@pytest.fixture
def ground(shared_ground: Ground) -> Iterator[Ground]:
    """After the attack the host is as it was, and the victim too."""
    before = HostState.now(shared_ground.server)
    yield shared_ground
    assert before.differences(shared_ground.server) == []
    said = shared_ground.victim.execute(
        "import os; print(secret, open('/workspace/secret').read(), os.environ['SECRET'])"
    )
    assert said["stdout"].split() == [VICTIM_SECRET] * 3, said


@pytest.fixture(scope="session")
def connected(internet: Internet, built_data_dir: Path) -> Iterator[RunningServer]:
    """A server on the machine of the test internet."""
    variables = {"COVE_NAMESERVERS": json.dumps([NAMESERVER])}
    with data_directory(built_data_dir) as data_dir:
        (data_dir / "marker").mkdir()
        (data_dir / "marker" / "secret").write_text(HOST_SECRET)
        with internet.on_machine():
            server = RunningServer.start(data_dir, "--isolation", "namespace", "--pool-size", "0", **variables)
        yield server
        server.stop()


@pytest.fixture(scope="session", params=DRIVERS)
def shared_networked(
    request: pytest.FixtureRequest, connected: RunningServer, internet: Internet
) -> Iterator[Networked]:
    """Both have networks; the victim's is open."""
    red, blue = (new_key(connected.data_dir, name, "--namespace", name) for name in ("red", "blue"))
    with internet.on_machine():
        attacker = make_sandbox(connected, red, request.param, network={"allow": ["allowed.example"]})
        victim = make_sandbox(connected, blue, request.param, internet_access=True)
    yield Networked(connected, str(request.param), red, blue, attacker, victim)
    with internet.on_machine():
        attacker.kill()
        victim.kill()


@pytest.fixture
def networked(shared_networked: Networked, internet: Internet) -> Iterator[Networked]:
    """This thread is on the machine; afterwards that is as it was, and the victim is served."""
    with internet.on_machine():
        before = HostState.now(shared_networked.server)
        yield shared_networked
        assert before.differences(shared_networked.server) == []
        assert is_served(shared_networked.victim)
