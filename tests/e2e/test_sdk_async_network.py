"""The client's view of a sandbox's network, against a real server. Nothing here needs a place outside."""

import pytest
from tests.e2e.running_server import RunningServer

from cove import AsyncSandbox
from cove.models.errors import InvalidRequest, NotFound
from cove.models.network import NetworkPolicy, NetworkPreset
from cove.sdk import AsyncControlPlane

pytestmark = pytest.mark.anyio  # async only

CURL = "curl -sS -m 5 http://10.1.2.3/ 2>&1; echo $?"


@pytest.fixture(autouse=True)
def use_the_server(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_BASE_URL", server.url)
    monkeypatch.delenv("COVE_API_KEY", raising=False)


async def test_a_policy_is_in_force_shown_and_changed() -> None:
    asked = {"allow": ["API.Example.com", "192.0.2.0/24:5432"], "deny": ["old.example.com"]}
    async with AsyncSandbox.create("base", network=asked) as sandbox:
        policy = sandbox.info.network
        assert policy is not None
        assert policy.allow == ("api.example.com", "192.0.2.0/24:5432")
        assert policy.deny == ("old.example.com",)
        assert not sandbox.info.internet_access
        told = (await sandbox.commands.run(CURL)).stdout
        assert "may not do that: no rule allows it" in told
        report = await sandbox.network.get()
        assert report.policy == policy
        assert [(entry.address, entry.allowed, entry.reason) for entry in report.entries] == [
            ("10.1.2.3", False, "no rule allows it")
        ]
        assert report.totals.refused == 1
        assert (await sandbox.network.get(after=report.entries[-1].sequence)).entries == ()

        public = await sandbox.network.update(deny=["bad.example.com"])
        assert public is not None
        assert (public.allow, public.deny) == (("*",), ("bad.example.com",))
        assert sandbox.info.internet_access
        assert (await sandbox.get_info()).network == public
        assert "its address is private" in (await sandbox.commands.run(CURL)).stdout
        assert (await sandbox.network.get()).entries[-1].reason == "its address is private"

        assert await sandbox.network.update(preset="none") is None
        assert sandbox.info.network is None
        assert (await sandbox.commands.run(CURL)).stdout.strip().endswith("\n7")  # refused
        assert (await sandbox.network.get()).policy is None


async def test_other_ways_to_say_it() -> None:
    policy = NetworkPolicy(preset=NetworkPreset.PUBLIC, deny=("*:25",))
    async with AsyncSandbox.create("base", network=policy) as sandbox:
        assert sandbox.info.internet_access
        assert await sandbox.network.update(allow=[]) is None
        assert await sandbox.network.update(allow=[], deny=["a.example.com"]) is None
        assert await sandbox.network.update(preset="package-registries") is not None
    async with AsyncSandbox.create("base", internet_access=False) as sandbox:
        assert sandbox.info.network is None


async def test_what_is_refused_before_anything_changes() -> None:
    async with AsyncSandbox.create("base", network={"allow": ["a.example.com"]}) as sandbox:
        before = sandbox.info.network
        with pytest.raises(InvalidRequest, match="No policy"):
            await sandbox.network.update()
        for rules in (["*.*"], ["0x7f.1"], "a.example.com"):
            with pytest.raises(InvalidRequest):
                await sandbox.network.update(allow=rules)
        with pytest.raises(InvalidRequest, match="preset"):
            await sandbox.network.update(preset="everything")
        assert (await sandbox.get_info()).network == before
    with pytest.raises(InvalidRequest, match="leave the scheme out"):
        await AsyncSandbox.create("base", network={"allow": ["http://a.example.com"]})
    with pytest.raises(InvalidRequest, match="same in two ways"):
        await AsyncSandbox.create("base", network={"preset": "public"}, internet_access=True)
    async with AsyncControlPlane() as control:
        with pytest.raises(NotFound):
            await control.network("1763382095abcdefgh")
        with pytest.raises(NotFound):
            await control.set_network("1763382095abcdefgh", {"allow": []})
