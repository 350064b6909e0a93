"""Templates that nobody has built: creates are told how far they are, and then succeed."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.core.fake_host import manifest
from tests.core.world import World, until

from cove.core import first_builds
from cove.core.first_builds import FirstBuilds
from cove.models.errors import CoveError, error
from cove.models.templates import BuildProgress

pytestmark = pytest.mark.anyio


class Builds:
    """Builds of the world's host, step by step as a test lets them go on."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.steps = asyncio.Queue[BuildProgress | CoveError | None]()
        self.names: list[str] = []

    async def build_template(self, name: str) -> AsyncIterator[BuildProgress]:
        self.names.append(name)
        while (step := await self.steps.get()) is not None:
            if isinstance(step, CoveError):
                raise step
            yield step
        self.world.host.manifests[name] = manifest(name)


@pytest.fixture
async def builds(world: World, monkeypatch: pytest.MonkeyPatch) -> Builds:
    del world.host.manifests["code-interpreter"]
    await world.engine.catalog.refresh()
    made = Builds(world)
    monkeypatch.setattr(world.host, "build_template", made.build_template)
    monkeypatch.setattr(first_builds, "_PAUSE_SECONDS", 0.01)
    return made


async def refusal(world: World) -> CoveError:
    with pytest.raises(CoveError) as caught:
        await world.create()
    assert not world.host.ids
    return caught.value


async def test_creates_are_told_how_far_it_is_and_then_succeed(world: World, builds: Builds) -> None:
    running = asyncio.create_task(FirstBuilds(world.host, world.engine.catalog, ("base", "code-interpreter")).run())
    try:
        await until(lambda: bool(builds.names))
        assert (await refusal(world)).code == "TEMPLATE_NOT_BUILT"
        builds.steps.put_nowait(BuildProgress(step="installing packages", fraction=0.425))
        await until(builds.steps.empty)
        told = await refusal(world)
        assert "42%" in told.message
        assert "installing packages" in told.message
        assert told.details["fraction"] == 0.425
        builds.steps.put_nowait(None)
        async with asyncio.timeout(10):
            await running
    finally:
        running.cancel()
    assert builds.names == ["code-interpreter"], "base was built already"
    assert (await world.create()).sandbox.id in world.host.ids
    assert not world.engine.catalog.unbuilt


async def test_a_build_that_fails_is_told_and_tried_again(world: World, builds: Builds) -> None:
    running = asyncio.create_task(FirstBuilds(world.host, world.engine.catalog, ("code-interpreter",)).run())
    try:
        builds.steps.put_nowait(error("NETWORK_ERROR", "No package index answers.", remedy="Look at the network."))
        await until(lambda: len(builds.names) > 1)
        told = await refusal(world)
        assert (told.code, told.message, told.remedy) == (
            "NETWORK_ERROR",
            "No package index answers.",
            "Look at the network.",
        )
        assert "fraction" not in told.details, "nobody shall wait for it"
        builds.steps.put_nowait(None)
        async with asyncio.timeout(10):
            await running
    finally:
        running.cancel()
    assert (await world.create()).sandbox.id in world.host.ids
