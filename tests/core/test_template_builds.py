"""Builds over a fake host, and a sandbox whose commands the tests decide."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.core.world import ALICE, BOB, World, until

from cove.core.background import Background
from cove.core.template_builds import TemplateBuilds
from cove.models.errors import CoveError
from cove.models.execution import CommandRequest, CommandResult
from cove.models.hosts import SandboxRecord
from cove.models.isolation import Isolation
from cove.models.network import NetworkPolicy
from cove.models.sandboxes import CreateSandbox
from cove.models.stored import StoredTemplate
from cove.models.template_builds import BuildStatus, BuildTemplate

pytestmark = pytest.mark.anyio
HASH = "a" * 64


class Guest:
    """Implements `BuildGuest`: every command succeeds, unless `answer` says otherwise; `gate` holds commands back."""

    def __init__(self) -> None:
        self.commands: list[CommandRequest] = []
        self.uploads: list[Path] = []
        self.answer = CommandResult(stdout="said\n")
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, record: SandboxRecord, command: CommandRequest) -> CommandResult:
        self.commands.append(command)
        await self.gate.wait()
        return self.answer

    async def start(self, record: SandboxRecord, command: str) -> None:
        self.commands.append(CommandRequest(command=command))

    async def upload(self, record: SandboxRecord, source: Path, target: str) -> None:
        self.uploads.append(source)

    async def capture(self, record: SandboxRecord, directory: str, target: Path, *, max_bytes: int) -> None:
        with tarfile.open(target, "w") as tar:
            tar.addfile(tarfile.TarInfo("file"), io.BytesIO())


class Shelf:
    """Implements `Uploads`: one archive, of one namespace."""

    def find(self, namespace: str, files_hash: str) -> Path | None:
        return Path("/uploaded") if (namespace, files_hash) == (ALICE.namespace, HASH) else None


class Building:
    """Builds in a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.guest = Guest()
        self.background = Background()
        self.builds = TemplateBuilds(
            host=world.host,
            store=world.store,
            catalog=world.engine.catalog,
            creator=world.engine.creator,
            guest=self.guest,
            uploads=Shelf(),
            background=self.background,
            policy=world.policy,
            directory=world.directory / "builds",
            clock=world.clock,
        )

    async def ended(self, template: StoredTemplate) -> StoredTemplate:
        async with asyncio.timeout(20):
            while (row := await self.builds.get(ALICE, str(template.id))).status is BuildStatus.BUILDING:
                await asyncio.sleep(0.01)
        return row


@pytest.fixture
async def building(world: World) -> AsyncIterator[Building]:
    made = Building(world)
    yield made
    made.guest.gate.set()
    await made.background.close(grace_seconds=5)


def request(*steps: object, name: str = "mine", **fields: Any) -> BuildTemplate:
    return BuildTemplate.model_validate({"name": name, "from_image": "python:3.12", "steps": steps, **fields})


RUN = {"type": "RUN", "args": ["true"]}


async def test_a_build_becomes_a_template_of_its_tenant(building: Building) -> None:
    steps = ({"type": "env", "key": "A", "value": "1"}, {"type": "workdir", "path": "/app"}, RUN)
    row = await building.ended(await building.builds.start(ALICE, request(*steps)))
    assert (row.status, row.build and row.build.progress) == (BuildStatus.ACTIVE, 100)
    run = building.guest.commands[-1]
    assert (run.env, run.workdir, run.args) == ({"A": "1"}, "/app", ("-c", "true"))
    assert "said" in (await building.builds.log(ALICE, str(row.id)))[1]
    creation = await building.world.create(ALICE, template_name="mine")
    assert creation.sandbox.template_name == "mine"
    assert creation.sandbox.limits.memory_mb == 2048
    assert building.world.host.ids == {creation.sandbox.id}, "the sandbox of the build is gone"
    assert not list((building.world.directory / "builds").iterdir())


async def test_a_template_says_what_its_sandboxes_may_reach(building: Building) -> None:
    network = {"allow": ["api.example.com"], "preset": "none"}
    row = await building.ended(await building.builds.start(ALICE, request(RUN, network=network)))
    host, world = building.world.host, building.world
    assert host.specs[-1].network is None
    assert host.manifests[row.host_name].network == NetworkPolicy.model_validate(network)
    asked: tuple[tuple[str, dict[str, object], tuple[str, ...] | None], ...] = (
        ("mine", {}, ("api.example.com",)),
        ("mine", {"network": {"allow": ["other.example.com"]}}, ("other.example.com",)),
        ("mine", {"internet_access": True}, ("*",)),
        ("mine", {"internet_access": False}, None),
        ("base", {}, None),
    )
    for template, fields, allowed in asked:
        await world.create(ALICE, template_name=template, **fields)
        reaches = host.specs[-1].network
        assert (reaches and reaches.allow) == allowed


async def test_a_template_may_not_be_wider_than_the_servers_maximum(world: World) -> None:
    world.policy = replace(world.policy, max_network=("*.example.com",))
    made = Building(world)
    with pytest.raises(CoveError) as caught:
        await made.builds.start(ALICE, request(RUN, network={"allow": ["a.example.org"]}))
    assert (caught.value.code, caught.value.details["rule"]) == ("FORBIDDEN", "a.example.org")
    await made.background.close(grace_seconds=5)


async def test_a_build_sets_limits_and_isolation(building: Building) -> None:
    asked = request(RUN, resources={"inodes": 5000, "memory_mb": 512}, isolation="gvisor")
    row = await building.ended(await building.builds.start(ALICE, asked))
    host = building.world.host
    assert (host.specs[-1].isolation, host.specs[-1].limits.inodes) == (Isolation.GVISOR, 5000)
    assert host.manifests[row.host_name].isolation is Isolation.GVISOR
    limits = (await building.world.create(ALICE, template_name="mine")).sandbox.limits
    assert (limits.memory_mb, limits.inodes, limits.vcpu) == (512, 5000, 2)
    assert host.specs[-1].isolation is Isolation.GVISOR
    with pytest.raises(CoveError) as refused:
        await building.world.create(ALICE, template_name="mine", isolation="namespace")
    assert (refused.value.code, refused.value.details["field"]) == ("FORBIDDEN", "isolation")


async def test_others_do_not_see_it(building: Building) -> None:
    row = await building.ended(await building.builds.start(ALICE, request(RUN)))
    number = str(row.id)
    calls: tuple[Callable[[], Awaitable[object]], ...] = (
        lambda: building.world.create(BOB, template_name="mine"),
        lambda: building.world.create(BOB, template_id=number),
        lambda: building.builds.get(BOB, number),
        lambda: building.builds.log(BOB, number),
        lambda: building.builds.remove(BOB, number),
    )
    for call in calls:
        with pytest.raises(CoveError) as refused:
            await call()
        assert refused.value.code in {"TEMPLATE_NOT_FOUND", "RESOURCE_NOT_FOUND"}
        assert "mine" not in refused.value.details.get("available_templates", ())
    theirs = await building.builds.start(BOB, request(RUN))
    assert theirs.id != row.id


@pytest.mark.parametrize("spelled", ["0{}", "+{}", "{}\n", "{}.0", "\u0661", "9" * 40, "", "1"])
async def test_other_spellings_of_an_id_are_no_build(building: Building, spelled: str) -> None:
    row = await building.ended(await building.builds.start(ALICE, request(RUN)))
    with pytest.raises(CoveError) as refused:
        await building.builds.get(ALICE, spelled.format(row.id))
    assert refused.value.code == "RESOURCE_NOT_FOUND"


async def test_what_the_record_of_events_says(building: Building) -> None:
    row = await building.ended(await building.builds.start(ALICE, request(RUN)))
    events = await building.world.store.read(lambda work: work.events.recent(namespace=ALICE.namespace))
    about = {event.action: dict(event.details) for event in events if event.subject == str(row.id)}
    assert row.build
    started = {"name": "mine", "base": row.build.base, "limits": row.build.limits}
    assert about == {"template.build_started": started, "template.build_completed": {"name": "mine"}}


async def test_an_archive_of_another_tenant(building: Building) -> None:
    step = {"type": "COPY", "args": ["a", "/workspace"], "filesHash": HASH}
    with pytest.raises(CoveError, match="was not uploaded"):
        await building.builds.start(BOB, request(step))
    await building.ended(await building.builds.start(ALICE, request(step)))
    assert building.guest.uploads == [Path("/uploaded")]


async def test_a_step_that_fails(building: Building) -> None:
    building.guest.answer = CommandResult(exit_code=7, stderr="first\nthe reason\n", success=False)
    row = await building.ended(await building.builds.start(ALICE, request(RUN)))
    assert row.status is BuildStatus.FAILED
    assert row.build
    assert row.build.error
    assert "Step 1 (RUN true) ended with 7: the reason" in row.build.error
    assert "ERROR" in (await building.builds.log(ALICE, str(row.id)))[1]
    assert building.world.host.ids == set()
    with pytest.raises(CoveError) as refused:
        await building.world.create(ALICE, template_name="mine")
    assert refused.value.code == "TEMPLATE_NOT_BUILT"


async def test_a_name_is_taken_until_it_is_updated(building: Building) -> None:
    row = await building.ended(await building.builds.start(ALICE, request(RUN)))
    with pytest.raises(CoveError) as refused:
        await building.builds.start(ALICE, request(RUN))
    assert refused.value.code == "CONFLICT"
    again = await building.ended(await building.builds.start(ALICE, request(RUN, update=True)))
    assert (again.id, again.status) == (row.id, BuildStatus.ACTIVE)


async def test_deletion_ends_a_build(building: Building) -> None:
    building.guest.gate.clear()
    row = await building.builds.start(ALICE, request(RUN))
    await until(lambda: bool(building.guest.commands))
    with pytest.raises(CoveError, match="exists already"):
        await building.builds.start(ALICE, request(RUN, update=True))
    await building.builds.remove(ALICE, "mine")
    assert building.world.host.ids == set()
    with pytest.raises(CoveError) as refused:
        await building.builds.get(ALICE, str(row.id))
    assert refused.value.code == "RESOURCE_NOT_FOUND"


async def test_a_build_whose_server_ended_has_failed(building: Building) -> None:
    building.guest.gate.clear()
    row = await building.builds.start(ALICE, request(RUN))
    await until(lambda: bool(building.guest.commands))
    await building.world.restart()
    later = Building(building.world)
    await later.builds.recover()
    found = await later.builds.get(ALICE, str(row.id))
    assert found.status is BuildStatus.FAILED
    assert found.build
    assert found.build.error == "The server ended during the build."


async def test_too_many_at_once(building: Building) -> None:
    building.guest.gate.clear()
    for number in range(5):
        await building.builds.start(ALICE, request(RUN, name=f"n{number}"))
    with pytest.raises(CoveError) as refused:
        await building.builds.start(ALICE, request(RUN, name="more"))
    assert refused.value.code == "RATE_LIMIT_EXCEEDED"
    await building.builds.start(BOB, request(RUN, name="more"))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"from_image": "nginx"}, "INVALID_REQUEST"),
        ({"memory": 1024 * 1024}, "RESOURCE_LIMIT_EXCEEDED"),
        ({"resources": {"cpu_share": 200}}, "RESOURCE_LIMIT_EXCEEDED"),
        ({"readyCmd": {"type": "port"}}, "INVALID_REQUEST"),
    ],
)
async def test_what_is_refused_at_once(building: Building, fields: dict[str, Any], code: str) -> None:
    with pytest.raises(CoveError) as refused:
        await building.builds.start(ALICE, request(RUN, **fields))
    assert refused.value.code == code
    assert len(building.world.engine.catalog.all(ALICE.namespace)) == 2


NOT_A_BUILD: list[dict[str, Any]] = [
    {"name": "../x"},
    {"name": ""},
    {"steps": [{"type": "CMD", "args": ["x"]}]},
    {"steps": [{"type": "RUN", "args": []}]},
    {"steps": [{"type": "ENV", "args": ["A=B", "1"]}]},
    {"steps": [{"type": "COPY", "args": ["a", "/b"]}]},
    {"steps": [{"type": "COPY", "args": ["a", "/b"], "filesHash": "../../x"}]},
    {"steps": [RUN] * 201},
    {"cpu": 0},
    {"readyCmd": {"type": "other"}},
]


@pytest.mark.parametrize("fields", NOT_A_BUILD)
def test_requests_that_are_none(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        BuildTemplate.model_validate({"name": "n", "from_image": "base", "steps": [RUN], **fields})


def test_creates_name_templates_in_every_form() -> None:
    assert CreateSandbox.model_validate({"template_id": 7}).template_id == "7"
