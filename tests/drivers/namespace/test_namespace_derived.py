"""What a tenant's build made is in its sandboxes, and in no process outside of them."""

import os
from pathlib import Path

import pytest
from tests.contract.driver_fixtures import Inside, spec_of
from tests.drivers.namespace.conftest import Ground

from cove.host.identities import TEMPLATE_OWNER
from cove.models.templates import TemplateManifest

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("as_root")]
MARK = "made-by-a-build"


def derived_from(base: TemplateManifest, directory: Path) -> TemplateManifest:
    """A template with one more layer and one more variable, as a build leaves them."""
    layer = directory / "layer"
    for name in ("home/user/.local/lib", "workspace", "app"):
        (layer / name).mkdir(parents=True)
        (layer / name / MARK).write_text(MARK)
    for path in (layer, *layer.rglob("*")):
        os.chown(path, TEMPLATE_OWNER, TEMPLATE_OWNER)
    return base.model_copy(
        update={
            "name": "t1",
            "base": base.name,
            "digest": base.digest[:-4] + "feed",
            "layers": (str(layer), *base.layers),
            "own_layers": (str(layer),),
            "environment": {**base.environment, "BUILT": MARK},
            "own_environment": {"BUILT": MARK},
            "owned_directories": ("/app",),
        }
    )


def fork_servers(directory: Path) -> list[Path]:
    """Directories in /proc of the fork servers whose root was built below `directory`."""
    found: list[Path] = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes()
            mounts = (process / "mountinfo").read_text() if b"cove.drivers.namespace.forkserver" in command else ""
        except (OSError, ValueError):
            continue
        if str(directory) in mounts or "/layer" in mounts:
            found.append(process)
    return found


async def test_a_build_reaches_sandboxes_and_no_warm_process(ground: Ground, tmp_path: Path) -> None:
    template = derived_from(ground.subject.template, tmp_path)
    before = set(fork_servers(tmp_path))
    record = await ground.driver.create(spec_of(ground.subject), template)
    try:
        paths = f"~/.local/lib/{MARK} /workspace/{MARK} /app/{MARK}"
        seen = await Inside(record).run(f"cat {paths}; touch /app/own; echo $BUILT")
        assert seen["stdout"] == f"{MARK}" * 3 + f"{MARK}\n", seen
        own = os.readlink(f"/proc/{record.pid}/ns/user")
        fresh = set(fork_servers(tmp_path)) - before
        servers = [process for process in fresh if os.readlink(process / "ns" / "user") != own]
        assert servers, "the warm process of the derived template"
        for process in servers:
            assert MARK.encode() not in (process / "environ").read_bytes()
            root = process / "root"
            assert not any((root / name / MARK).exists() for name in ("home/user/.local/lib", "workspace", "app"))
            assert (root / "usr").is_dir(), "what is looked at is its root"
    finally:
        await ground.driver.destroy(record)
