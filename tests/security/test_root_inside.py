"""A template whose programs run as root: the walls are the same ones."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.e2e.running_server import RunningServer, until
from tests.security import test_kernel_and_host as kernel_and_host
from tests.security.attacks import attack
from tests.security.conftest import DRIVERS
from tests.security.ground import VICTIM_SECRET, Ground, HostState, Inside, make_sandbox, tenant
from tests.security.programs import done, program

ROWS: tuple[Callable[[Ground], None], ...] = (
    kernel_and_host.test_system_calls_that_reach_far,
    kernel_and_host.test_what_stands_behind_the_first_wall,
    kernel_and_host.test_kernel_settings_in_proc,
    kernel_and_host.test_kernel_memory_and_addresses,
    kernel_and_host.test_device_nodes,
    kernel_and_host.test_processes_of_others,
    kernel_and_host.test_the_agent_cannot_be_taken_over,
    kernel_and_host.test_sockets_of_the_host,
    kernel_and_host.test_cgroups_cannot_be_changed,
)
OF_THE_KERNEL = (kernel_and_host.test_kernel_settings_in_proc, kernel_and_host.test_device_nodes)
"""A kernel of its own lets its root do some of this, to itself; that the host's settings stay is looked at."""

TEMPLATE = "root-inside"


@pytest.fixture(scope="module")
def template(attacked: RunningServer, keys: tuple[str, str]) -> str:
    """Of the attacker's, built the way tenants do it."""
    body = {"name": TEMPLATE, "from_image": "base", "run_as_root": True, "diskGB": 1}
    with tenant(attacked, keys[0]) as client:
        accepted = client.post("/v1/templates/build", json=body)
        assert accepted.status_code < 300, accepted.text
        address = f"/v1/templates/build/{accepted.json()['build_id']}/status"
        until(lambda: client.get(address).json()["status"] != "building", seconds=60, what="the build ends")
        assert client.get(address).json()["status"] == "active", client.get(address).json()
    return TEMPLATE


class RootGround(Ground):
    """All sandboxes of the attacker are of that template."""

    def make(self, **fields: Any) -> Inside:
        return super().make(template_name=TEMPLATE, **fields)


@pytest.fixture(scope="module", params=DRIVERS)
def root_ground(
    request: pytest.FixtureRequest, attacked: RunningServer, keys: tuple[str, str], template: str
) -> Iterator[Ground]:
    red, blue = keys
    attacker = make_sandbox(attacked, red, request.param, template_name=template)
    victim = make_sandbox(attacked, blue, request.param)
    victim.write("/workspace/secret", VICTIM_SECRET)
    yield RootGround(attacked, str(request.param), red, blue, attacker, victim)
    attacker.kill()
    victim.kill()


@attack(
    "The attempts of this part by root inside, of a template with `run_as_root`",
    expected="what is expected of the others",
    control="those of each attempt, and that it is root who tries",
)
def test_root_inside_finds_the_same_walls(root_ground: Ground) -> None:
    before = HostState.now(root_ground.server)
    own = program('attempt("root", lambda: os.chown("/etc/hostname", 33, 33))')
    assert "root" in done(root_ground.attacker.attack(own))
    for row in ROWS:
        if not (root_ground.own_kernel and row in OF_THE_KERNEL):
            row(root_ground)
    assert before.differences(root_ground.server) == []
    assert root_ground.victim.command("cat /workspace/secret")["stdout"] == VICTIM_SECRET
