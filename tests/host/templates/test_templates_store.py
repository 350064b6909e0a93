import errno
import fcntl
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cove.host.templates.interpreter import find_interpreter
from cove.host.templates.layers import Layer, Workspace
from cove.host.templates.plan import Plan, make_plan
from cove.host.templates.recipes import Recipe, load_recipe
from cove.host.templates.store import Planner, TemplateStore
from cove.models.errors import CoveError, error
from cove.models.templates import BuildProgress


@dataclass
class FileLayer:
    """A real layer of one file."""

    kind: str
    content: str = "content"
    seconds: float = 1.0
    failure: Exception | None = None
    directories: tuple[str, ...] = ()
    builds: list[tuple[Path, ...]] = field(default_factory=list[tuple[Path, ...]])

    def inputs(self) -> Mapping[str, Any]:
        return {"content": self.content}

    def build(self, work: Workspace) -> None:
        self.builds.append(work.below)
        work.report(f"Writing {self.kind}", 0.5)
        work.rootfs.text(f"/{self.kind}", self.content)
        for path in self.directories:
            work.rootfs.directory(path)
        work.packages[self.kind] = self.content
        work.notes.append(f"note of {self.kind}")
        if self.failure is not None:
            raise self.failure


RECIPE = load_recipe("base").model_copy(update={"checks": ()})


def store_planner(*layers: Layer) -> Planner:
    def plan(recipe: Recipe, _memory: Path) -> Plan:
        return Plan(recipe, find_interpreter(), layers)

    return plan


def make_store(data_dir: Path, *layers: FileLayer) -> TemplateStore:
    return TemplateStore(data_dir, owner=None, planner=store_planner(*layers))


def ignore(_progress: BuildProgress) -> None:
    return


def leftovers(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "layers").iterdir() if path.name.startswith("."))


def test_a_built_template_can_be_read_again(tmp_path: Path) -> None:
    lower, upper = FileLayer("lower"), FileLayer("upper")
    built = make_store(tmp_path, lower, upper).build_recipe(RECIPE, on_progress=ignore)

    store = make_store(tmp_path, lower, upper)
    assert store.get("base") == built
    assert store.list() == (built,)
    assert store.is_current("base")
    assert [sorted(os.listdir(layer)) for layer in built.layers] == [["upper"], ["lower"]]
    assert lower.builds == [()]
    assert upper.builds == [(Path(built.layers[1]),)]
    assert built.packages == {"lower": "content", "upper": "content"}
    assert built.notes == ("note of lower", "note of upper")
    assert built.size_bytes > 0
    assert leftovers(tmp_path) == []


def test_only_what_changed_is_built_again(tmp_path: Path) -> None:
    lower = FileLayer("lower")
    first = make_store(tmp_path, lower, FileLayer("upper")).build_recipe(RECIPE, on_progress=ignore)
    edited = FileLayer("upper", "edited")
    store = make_store(tmp_path, lower, edited)

    assert not store.is_current("base")
    second = store.build_recipe(RECIPE, on_progress=ignore)

    assert len(lower.builds) == len(edited.builds) == 1
    assert second.layers[1] == first.layers[1]
    assert second.digest != first.digest
    assert store.remove_unused(in_use=[first.layers[0]]) == 0
    assert store.remove_unused() == 1
    assert not Path(first.layers[0]).exists()
    assert store.get("base") == second


def test_layers_of_another_owner_are_not_used_again(tmp_path: Path) -> None:
    layer = FileLayer("only")
    store = make_store(tmp_path, layer)
    store.build_recipe(RECIPE, on_progress=ignore)
    other = TemplateStore(tmp_path, owner=os.getuid(), planner=store_planner(layer))

    assert not other.is_current("base")
    other.build_recipe(RECIPE, on_progress=ignore)
    assert len(layer.builds) == 2


def test_building_again_without_a_change_does_nothing(tmp_path: Path) -> None:
    layer = FileLayer("only")
    store = make_store(tmp_path, layer)
    first = store.build_recipe(RECIPE, on_progress=ignore)

    assert store.build_recipe(RECIPE, on_progress=ignore) == first
    assert len(layer.builds) == 1


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "DISK_FULL"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "DISK_FULL"),
        (PermissionError(errno.EACCES, "Permission denied"), "TEMPLATE_BUILD_FAILED"),
        (error("NETWORK_ERROR", "The package index could not be reached."), "NETWORK_ERROR"),
    ],
)
def test_a_failure_leaves_nothing_and_the_next_build_goes_on(tmp_path: Path, failure: Exception, code: str) -> None:
    lower, upper = FileLayer("lower"), FileLayer("upper", failure=failure)
    store = make_store(tmp_path, lower, upper)

    with pytest.raises(CoveError) as caught:
        store.build_recipe(RECIPE, on_progress=ignore)
    assert caught.value.code == code
    assert caught.value.remedy or code == "NETWORK_ERROR"
    assert store.list() == ()
    assert leftovers(tmp_path) == []

    upper.failure = None
    store.build_recipe(RECIPE, on_progress=ignore)
    assert (len(lower.builds), len(upper.builds)) == (1, 2)


def test_progress_never_goes_back_and_ends_at_one(tmp_path: Path) -> None:
    seen: list[BuildProgress] = []
    make_store(tmp_path, FileLayer("a", seconds=3), FileLayer("b")).build_recipe(RECIPE, on_progress=seen.append)

    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert any("Writing a" in progress.step for progress in seen)


def test_remains_of_a_killed_build_are_removed(tmp_path: Path) -> None:
    remains = tmp_path / "layers" / ".building-dead" / "root"
    remains.mkdir(parents=True)
    (remains / "file").write_text("half")

    make_store(tmp_path, FileLayer("only")).build_recipe(RECIPE, on_progress=ignore)

    assert leftovers(tmp_path) == []


def test_a_build_waits_for_another_one(tmp_path: Path) -> None:
    layer = FileLayer("only")
    store = make_store(tmp_path, layer)
    (tmp_path / "templates").mkdir()
    descriptor = os.open(tmp_path / "templates" / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    waiting = threading.Event()

    def notice(progress: BuildProgress) -> None:
        if "Waiting" in progress.step:
            waiting.set()

    builder = threading.Thread(target=store.build_recipe, args=(RECIPE,), kwargs={"on_progress": notice})
    builder.start()
    try:
        assert waiting.wait(10)
        assert layer.builds == []
    finally:
        os.close(descriptor)
        builder.join(20)
    assert not builder.is_alive()
    assert len(layer.builds) == 1


def test_damaged_or_missing_parts_count_as_not_built(tmp_path: Path) -> None:
    layer = FileLayer("only")
    store = make_store(tmp_path, layer)
    built = store.build_recipe(RECIPE, on_progress=ignore)
    manifest = tmp_path / "templates" / "base.json"
    whole = manifest.read_text()

    manifest.write_text(whole[: len(whole) // 2])
    assert code_of(lambda: store.get("base")) == "TEMPLATE_NOT_BUILT"
    manifest.write_text(whole)
    Path(built.layers[0]).rename(tmp_path / "gone")
    assert code_of(lambda: store.get("base")) == "TEMPLATE_NOT_BUILT"
    assert not store.is_current("base")

    store.build_recipe(RECIPE, on_progress=ignore)
    assert store.is_current("base")


@pytest.mark.parametrize("name", ["nothing", "", "../templates/base", "/etc/passwd", "a\0b", "x" * 300])
def test_unknown_names(tmp_path: Path, name: str) -> None:
    store = make_store(tmp_path, FileLayer("only"))

    assert code_of(lambda: store.get(name)) == "TEMPLATE_NOT_FOUND"
    assert code_of(lambda: store.is_current(name)) == "TEMPLATE_NOT_FOUND"
    assert code_of(lambda: store.build(name, on_progress=ignore)) == "TEMPLATE_NOT_FOUND"


def test_a_known_template_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(CoveError) as caught:
        TemplateStore(tmp_path, owner=None).get("code-interpreter")
    assert caught.value.code == "TEMPLATE_NOT_BUILT"
    assert "cove templates build code-interpreter" in caught.value.remedy


def test_the_plan_of_the_default_template(tmp_path: Path) -> None:
    plan = make_plan(load_recipe("code-interpreter"), tmp_path / "memory")

    kinds = [layer.kind for layer in plan.layers]
    assert kinds == ["host", "node", "go", "packages", "agent-requirements", "agent"]
    assert len(set(plan.digests)) == len(kinds)
    assert plan.environment["GOCACHE"].startswith("/usr/lib/cove/")
    assert not {"PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH"} & plan.environment.keys()
    base = make_plan(load_recipe("base"), tmp_path / "memory")
    assert base.digests[0] == plan.digests[0]
    assert [layer.kind for layer in base.layers] == ["host", "packages", "agent-requirements", "agent"]
    assert "GOROOT" not in base.environment


def code_of(call: Callable[[], object]) -> str:
    with pytest.raises(CoveError) as caught:
        call()
    return caught.value.code


def test_a_failed_check_is_not_forgotten(tmp_path: Path) -> None:
    store = make_store(tmp_path, FileLayer("lower", directories=("/proc", "/dev")), FileLayer("upper"))
    recipe = RECIPE.model_copy(update={"checks": (("no-such-program",),)})

    for _ in range(2):
        try:
            manifest = store.build_recipe(recipe, on_progress=ignore)
        except CoveError as failure:
            assert failure.code == "TEMPLATE_BUILD_FAILED"
            assert "no-such-program" in failure.message
            assert store.list() == ()
            assert leftovers(tmp_path) == []
        else:
            assert any(note.startswith("checks: left out") for note in manifest.notes)
            pytest.skip(f"no namespaces or overlay mounts here: {manifest.notes}")
