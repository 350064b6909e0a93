"""From what is asked for, by a request, a template or the operator, to the limits and the isolation of a sandbox."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from tests.core.fake_host import FakeHost, manifest
from tests.core.world import ALICE, World, until

from cove.core.enforcement import require
from cove.core.planning import CreationPolicy
from cove.models.errors import CoveError
from cove.models.isolation import DriverReport, Isolation
from cove.models.limits import INODES_PER_MB, Limits
from cove.models.quotas import PER_SANDBOX, Quota
from cove.models.sandboxes import ResourcesRequest

pytestmark = pytest.mark.anyio


async def code_of(world: World, **fields: object) -> str:
    with pytest.raises(CoveError) as caught:
        await world.create(**fields)
    assert not world.host.ids, "nothing was started"
    return caught.value.code


async def with_template(world: World, **changes: object) -> None:
    world.host.manifests["base"] = manifest("base", "d2").model_copy(update=changes)
    await world.engine.catalog.refresh()


def test_every_limit_can_be_asked_for_and_has_a_ceiling() -> None:
    assert set(ResourcesRequest.model_fields) == set(Limits.model_fields) == set(PER_SANDBOX.values())
    assert set(PER_SANDBOX) < set(Quota.model_fields)


@pytest.mark.parametrize("asked", [{"memory": 512}, {"memory_mb": 512, "gpu": 1}, {"inodes": 0}, {"cpu_share": 20_000}])
def test_what_is_no_limit(asked: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ResourcesRequest.model_validate(asked)


@pytest.mark.parametrize("name", sorted(set(Limits.model_fields)))
async def test_maxima_of_the_server(world: World, name: str) -> None:
    world.policy = replace(world.policy, max_limits=Limits(**{name: 1024}) if name != "vcpu" else Limits(vcpu=4))
    most: int = getattr(world.policy.max_limits, name)
    await world.restart()
    await world.engine.catalog.refresh()
    with pytest.raises(CoveError) as caught:
        await world.create(resources={name: most * 2})
    assert caught.value.code == "RESOURCE_LIMIT_EXCEEDED"
    facts = {"field": f"resources.{name}", "limit": most, "current": most * 2, "available": most}
    assert caught.value.details == facts
    made = await world.create(resources={name: most})
    assert getattr(made.sandbox.limits, name) == most


async def test_no_limit_at_all_shrinks_to_the_ceiling(world: World) -> None:
    bounded = replace(ALICE, namespace_quota=Quota(max_execution_seconds=60, max_inodes=4096))
    limits = (await world.create(bounded)).sandbox.limits
    assert (limits.max_execution_seconds, limits.inodes, limits.max_output_bytes) == (60, 4096, None)
    roomy = replace(ALICE, namespace_quota=Quota(max_inodes=Limits().disk_mb * INODES_PER_MB))
    assert (await world.create(roomy)).sandbox.limits.inodes is None, "its disk brings no more than that"


async def test_limits_of_a_recipe(world: World) -> None:
    await with_template(world, resources={"memory_mb": 99 * 1024, "inodes": 5000})
    limits = (await world.create(template_name="base")).sandbox.limits
    assert (limits.memory_mb, limits.inodes) == (world.policy.max_limits.memory_mb, 5000)
    asked = await world.create(template_name="base", resources={"inodes": 6000})
    assert asked.sandbox.limits.inodes == 6000


async def test_all_limits_are_kept_in_the_store(world: World) -> None:
    asked = {"inodes": 1000, "cpu_share": 50, "max_execution_seconds": 9, "max_output_bytes": 4096, "pids": 20}
    made = await world.create(resources=asked)
    row = await world.row(made.sandbox.id)
    assert row is not None
    assert row.limits == made.sandbox.limits == Limits(**asked)
    assert row.unenforced == made.sandbox.unenforced


async def test_a_template_that_wants_a_level(world: World) -> None:
    await with_template(world, isolation=Isolation.NAMESPACE)
    assert await code_of(world, template_name="base", isolation="fake") == "FORBIDDEN"
    await world.create(template_name="base")
    await world.create(template_name="base", isolation="gvisor")
    assert [spec.isolation for spec in world.host.specs] == [Isolation.NAMESPACE, Isolation.GVISOR]


async def test_nobody_is_allowed_more_than_the_servers_maximum(world: World) -> None:
    world.policy = replace(world.policy, max_network=("*.example.com", "192.0.2.0/24:443"))
    await world.restart()
    await world.engine.catalog.refresh()
    for network in ({"allow": ["a.example.com", "192.0.2.7:443"]}, {"preset": "none"}):
        await world.create(template_name="base", network=network)
    refused: tuple[dict[str, object], ...] = (
        {"network": {"allow": ["a.example.com", "example.com"]}},
        {"network": {"allow": ["192.0.2.7"]}},
        {"network": {"deny": ["a.example.com"]}},
        {"internet_access": True},
    )
    for fields in refused:
        with pytest.raises(CoveError) as caught:
            await world.create(template_name="base", **fields)
        assert (caught.value.code, caught.value.details["field"]) == ("FORBIDDEN", "network")
    assert await world.create(template_name="base")


async def test_what_must_hold_goes_to_the_host_with_every_sandbox(tmp_path: Path) -> None:
    world = World(tmp_path, pool_size=1, policy=CreationPolicy(must_hold=frozenset({"memory_mb"})))
    await world.open()
    try:
        await world.create(resources={"pids": 20})
        await world.engine.start()
        await until(lambda: world.engine.pool.sizes() == {"code-interpreter": 1})
    finally:
        await world.close()
    assert [spec.required_limits for spec in world.host.specs] == [{"memory_mb", "pids"}, {"memory_mb"}]


class Checked(FakeHost):
    """A host that says this of its drivers."""

    def __init__(self, directory: Path, *reports: DriverReport) -> None:
        super().__init__(directory)
        self._reports = reports
        self.asked = 0

    async def check(self) -> tuple[DriverReport, ...]:
        self.asked += 1
        return self._reports


async def test_a_level_that_is_insisted_on_is_there_or_the_start_is_refused(tmp_path: Path) -> None:
    broken = DriverReport(
        isolation=Isolation.GVISOR, available=False, summary="", problems=("runsc is missing.",), remedies=("get it",)
    )
    for level, host in ((Isolation.GVISOR, Checked(tmp_path, broken)), (Isolation.MICROVM, Checked(tmp_path, broken))):
        with pytest.raises(CoveError) as caught:
            await require(host, level)
        assert caught.value.code == "ISOLATION_UNAVAILABLE"
    working = Checked(tmp_path, broken.model_copy(update={"available": True}))
    await require(working, Isolation.GVISOR)
    for level in (None, Isolation.NAMESPACE):
        await require(working, level)
    assert working.asked == 1, "trying takes time: only what needs more than the kernel is tried"
