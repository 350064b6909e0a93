import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cove.host.templates.interpreter import find_interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.plan import Plan
from cove.host.templates.recipes import Recipe, load_recipe
from cove.host.templates.store import TemplateStore
from cove.models.errors import CoveError
from cove.models.limits import Limits
from cove.models.templates import CapturedDirectory, TemplateDerivation, TemplateManifest

RECIPE = load_recipe("base").model_copy(update={"checks": ()})


@dataclass
class OneFile:
    """A layer of one file."""

    content: str
    kind: str = "file"
    seconds: float = 1.0

    def inputs(self) -> Mapping[str, Any]:
        return {"content": self.content}

    def build(self, work: Workspace) -> None:
        work.rootfs.text("/file", self.content)


def make_base(data_dir: Path, content: str = "one") -> TemplateStore:
    def planner(recipe: Recipe, _memory: Path) -> Plan:
        return Plan(recipe, find_interpreter(), (OneFile(content),))

    store = TemplateStore(data_dir, owner=None, planner=planner)
    store.build_recipe(RECIPE, on_progress=lambda _: None)
    return store


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive(builds: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = builds / "7" / "0.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def derivation_of(name: str, **fields: Any) -> TemplateDerivation:
    return TemplateDerivation(
        name="t7",
        base="base",
        display_name="Mine",
        description="",
        directories=(CapturedDirectory(inside="/home/user", archive=name),),
        **fields,
    )


def derive(store: TemplateStore, builds: Path, captured: Path, **fields: Any) -> TemplateManifest:
    return store.derive(derivation_of(f"{captured.parent.name}/{captured.name}", **fields), builds=builds)


def test_a_derived_template_stands_on_its_base(tmp_path: Path) -> None:
    store = make_base(tmp_path)
    file = (member("bin/tool", mode=0o755), b"#!/bin/sh\n")
    link = (member("alias", type=tarfile.SYMTYPE, linkname="bin/tool"), b"")
    secret = (member("secret", mode=0o4600), b"s")
    manifest = derive(
        store, tmp_path / "builds", archive(tmp_path / "builds", file, link, secret), environment={"A": "1"}
    )
    base = store.get("base")
    assert manifest.layers == (*manifest.own_layers, *base.layers)
    assert (manifest.environment["A"], manifest.environment["HOME"]) == ("1", base.environment["HOME"])
    home = Path(manifest.own_layers[0], "home/user")
    assert (home / "bin/tool").read_bytes() == b"#!/bin/sh\n"
    # Everybody may do what the owner might, and nothing is set-uid.
    assert [(home / name).stat().st_mode & 0o7777 for name in ("bin/tool", "secret")] == [0o777, 0o666]
    assert (home / "alias").readlink() == Path("bin/tool")
    assert store.get("t7") == manifest


def test_a_new_build_of_the_base_reaches_it(tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    before = derive(make_base(tmp_path), builds, archive(builds, (member("a"), b"1")))
    version = make_base(tmp_path).version("t7")
    store = make_base(tmp_path, "two")
    after = store.get("t7")
    assert after.layers[1:] == store.get("base").layers
    assert (after.own_layers, after.digest != before.digest) == (before.own_layers, True)
    assert store.version("t7") != version


def test_root_inside_is_a_derivations_own_choice(tmp_path: Path) -> None:
    store = make_base(tmp_path)
    captured = archive(tmp_path / "builds", (member("a"), b"x"))
    plain = derive(store, tmp_path / "builds", captured)
    rooted = derive(store, tmp_path / "builds", captured, run_as_root=True)
    assert (store.get("base").run_as_root, plain.run_as_root, rooted.run_as_root) == (False, False, True)
    assert plain.digest != rooted.digest
    assert store.get("t7").run_as_root


def test_removal(tmp_path: Path) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    manifest = derive(store, builds, archive(builds, (member("a"), b"1")))
    store.remove("t7", in_use=True)
    assert Path(manifest.own_layers[0]).is_dir()
    derive(store, builds, archive(builds, (member("a"), b"1")))
    store.remove("t7")
    store.remove("t7")
    assert not Path(manifest.own_layers[0]).exists()
    assert [one.name for one in store.list()] == ["base"]
    with pytest.raises(CoveError, match="comes with Cove"):
        store.remove("base")


@pytest.mark.parametrize(
    "hostile",
    [
        (member("../out"), b"x"),
        (member("/out"), b"x"),
        (member("a/../../out"), b"x"),
    ],
)
def test_names_that_lead_out(tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes]) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    with pytest.raises(CoveError, match="leads out") as refused:
        derive(store, builds, archive(builds, hostile))
    assert refused.value.code == "TEMPLATE_BUILD_FAILED"
    assert [one.name for one in store.list()] == ["base"]


def test_links_are_never_followed(tmp_path: Path) -> None:
    store, builds, outside = make_base(tmp_path), tmp_path / "builds", tmp_path / "outside"
    outside.mkdir()
    link = (member("way", type=tarfile.SYMTYPE, linkname=str(outside)), b"")
    with pytest.raises(CoveError, match="is no directory"):
        derive(store, builds, archive(builds, link, (member("way/file"), b"x")))
    over = (member("target", type=tarfile.SYMTYPE, linkname=str(outside / "file")), b"")
    derive(store, builds, archive(builds, over, (member("target"), b"x")))
    assert os.listdir(outside) == []


def test_devices_and_pipes_are_left_out(tmp_path: Path) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    device = (member("disk", type=tarfile.BLKTYPE, devmajor=8, devminor=0), b"")
    manifest = derive(store, builds, archive(builds, device, (member("pipe", type=tarfile.FIFOTYPE), b"")))
    assert os.listdir(Path(manifest.own_layers[0], "home/user")) == []


def test_more_than_the_disk_holds(tmp_path: Path) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    large = archive(builds, (member("large"), b"\0" * (65 * 1024 * 1024)))
    with pytest.raises(CoveError, match="larger than the disk"):
        derive(store, builds, large, limits=Limits(disk_mb=64))


def test_an_archive_from_elsewhere(tmp_path: Path) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    elsewhere = archive(tmp_path / "elsewhere", (member("a"), b"1"))
    (builds / "7").mkdir(parents=True)
    for name in (str(elsewhere), "../elsewhere/7/0.tar", "7/../../0.tar", "7/0", "0.tar"):
        with pytest.raises(CoveError, match="is no archive"):
            store.derive(derivation_of(name), builds=builds)
    (builds / "7/1.tar").symlink_to(elsewhere)
    (builds / "8").symlink_to(elsewhere.parent)
    os.mkfifo(builds / "7/2.tar")
    (builds / "7/3.tar").mkdir()
    for name, why in (("7/1.tar", "cannot be read"), ("8/0.tar", "cannot be read"), ("7/9.tar", "cannot be read")):
        with pytest.raises(CoveError, match=why):
            store.derive(derivation_of(name), builds=builds)
    for name in ("7/2.tar", "7/3.tar"):
        with pytest.raises(CoveError, match="is no file"):
            store.derive(derivation_of(name), builds=builds)
    shutil.copy(elsewhere, builds / "7/4.tar")
    assert store.derive(derivation_of("7/4.tar"), builds=builds).name == "t7"


def test_a_broken_archive(tmp_path: Path) -> None:
    store, builds = make_base(tmp_path), tmp_path / "builds"
    (builds / "7").mkdir(parents=True)
    (builds / "7/5.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(CoveError, match="is broken"):
        derive(store, builds, builds / "7/5.tar")
