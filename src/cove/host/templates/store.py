"""The templates of one data directory: which are built, which are current, and building them."""

import errno
import fcntl
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import ValidationError

from cove.host.templates.archive_layer import ArchiveLayer
from cove.host.templates.derivation import derived, on_base
from cove.host.templates.layer_store import STAGING, LayerStore, write_atomically
from cove.host.templates.layers import LayerRecord, digest_of
from cove.host.templates.paths import AGENT_PATH
from cove.host.templates.progress import ProgressScale
from cove.host.templates.recipes import Recipe, load_recipe, recipe_names
from cove.linux.beneath import Beneath
from cove.models.errors import error
from cove.models.limits import MIB
from cove.models.templates import BuildProgress, TemplateDerivation, TemplateManifest

if TYPE_CHECKING:
    from cove.host.templates.plan import Plan

LOCK_TIMEOUT = 1800.0
LOCK_POLL = 0.2
CHECK_SECONDS = 8.0
_ARCHIVE = re.compile(r"[0-9a-z]{1,20}/[0-9a-z]{1,20}\.tar")
_READ_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

OnProgress = Callable[[BuildProgress], None]
Planner = Callable[[Recipe, Path], "Plan"]


class TemplateStore:
    """Reads and writes `templates/<name>.json` and `layers/<digest>/` below the data directory."""

    def __init__(self, data_dir: Path, *, owner: int | None, planner: Planner | None = None) -> None:
        """
        Args:
            owner: user and group id of all files in layers; None leaves them to the user who builds.
            planner: decides of which layers a recipe is made; None: as this program's own recipes say.
        """
        self._templates = data_dir.absolute() / "templates"
        self._layers = LayerStore(data_dir.absolute() / "layers", owner=owner)
        self._owner = owner
        self._planner = planner

    def recipes(self) -> tuple[Recipe, ...]:
        """All templates that can be built."""
        return tuple(load_recipe(name) for name in recipe_names())

    def list(self) -> tuple[TemplateManifest, ...]:
        """All templates that are built, by name."""
        names = sorted(path.stem for path in self._templates.glob("*.json")) if self._templates.is_dir() else []
        return tuple(manifest for name in names if (manifest := self._read(name)) is not None)

    def get(self, name: str) -> TemplateManifest:
        """The built template `name`.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_BUILT.
        """
        manifest = self._read(name)
        if manifest is not None:
            return manifest
        load_recipe(name)
        raise error(
            "TEMPLATE_NOT_BUILT", f"The template {name!r} is not built on this host.",
            remedy=f"Run `cove templates build {name}`.",
        )  # fmt: skip

    def version(self, name: str) -> int | None:
        """Changes with every build of `name` or of what it was derived from; None when it is not built. Costs a look
        at few files."""
        built = self._built_at(name) if _NAME.fullmatch(name) else None
        if built is None or name in recipe_names():
            return built
        return built + sum(self._built_at(recipe) or 0 for recipe in recipe_names())

    def _built_at(self, name: str) -> int | None:
        try:
            return (self._templates / f"{name}.json").stat().st_mtime_ns
        except OSError:
            return None

    def is_current(self, name: str) -> bool:
        """Whether a build would change nothing: same recipe, same host programs, same guest code.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND.
        """
        recipe = load_recipe(name)
        manifest = self._read(name)
        return manifest is not None and manifest.digest == self._plan(recipe).digest

    def build(self, name: str, *, on_progress: OnProgress) -> TemplateManifest:
        """Build what is missing of a template; blocks for up to minutes. Layers that exist are used again, so a
        build that failed goes on where it stopped.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_BUILD_FAILED, NETWORK_ERROR, DISK_FULL, CONFLICT (another
                build holds the lock for too long).
        """
        return self.build_recipe(load_recipe(name), on_progress=on_progress)

    def build_recipe(self, recipe: Recipe, *, on_progress: OnProgress) -> TemplateManifest:
        """Like `build`, for a recipe that need not be one of the shipped ones."""
        try:
            self._templates.mkdir(parents=True, exist_ok=True, mode=0o755)
            with self._locked(on_progress):
                return self._build(self._plan(recipe), on_progress)
        except subprocess.SubprocessError as problem:
            raise error("TEMPLATE_BUILD_FAILED", f"Template {recipe.name!r} was not built: {problem}") from problem
        except OSError as problem:
            if problem.errno in _DISK_FULL:
                raise error("DISK_FULL", f"The disk is full: template {recipe.name!r} was not built.") from problem
            raise error(
                "TEMPLATE_BUILD_FAILED", f"Template {recipe.name!r} was not built: {problem}",
                remedy="Check the permissions of the data directory.",
            ) from problem  # fmt: skip

    def derive(self, derivation: TemplateDerivation, *, builds: Path) -> TemplateManifest:
        """Make a template of another one and of directories that a build left; blocks.

        Args:
            builds: the archives are below this directory, which somebody else may write to while they are read.

        Raises:
            CoveError: TEMPLATE_NOT_FOUND, TEMPLATE_NOT_BUILT (the base), TEMPLATE_BUILD_FAILED, DISK_FULL, CONFLICT.
        """
        if not _NAME.fullmatch(derivation.name) or derivation.name in recipe_names():
            raise error("INVALID_REQUEST", f"{derivation.name[:64]!r} cannot be the name of a derived template.")
        base = self.get(derivation.base)
        try:
            with self._locked(_unseen), ExitStack() as held:
                archives = [
                    (PurePosixPath(one.inside), Path(f"/proc/self/fd/{_opened_archive(held, builds, one.archive)}"))
                    for one in derivation.directories
                ]
                layer = ArchiveLayer(archives, max_bytes=derivation.limits.disk_mb * MIB)
                digest = digest_of(layer, owner=self._owner)
                record = self._layers.record(digest) or self._layers.build(layer, digest, (), _unheard)
                manifest = derived(derivation, base, self._layers.path(digest), size_bytes=record.size_bytes)
                write_atomically(self._templates / f"{derivation.name}.json", manifest.model_dump_json(indent=2))
        except OSError as problem:
            code = "DISK_FULL" if problem.errno in _DISK_FULL else "TEMPLATE_BUILD_FAILED"
            raise error(code, f"The template was not built: {problem.strerror}.") from problem
        return manifest

    def remove(self, name: str, *, in_use: bool = False) -> None:
        """Remove a derived template, and unless sandboxes stand on it (`in_use`), its own layers. Idempotent.

        Raises:
            CoveError: FORBIDDEN for a template that has a recipe.
        """
        if name in recipe_names():
            raise error("FORBIDDEN", f"The template {name!r} comes with Cove and cannot be removed.")
        manifest = self._read(name)
        if manifest is None:
            return
        with self._locked(_unseen):
            (self._templates / f"{name}.json").unlink(missing_ok=True)
            others = {layer for other in self.list() for layer in other.layers}
            if not in_use:
                self._layers.remove({Path(layer).name for layer in manifest.own_layers if layer not in others})

    def remove_unused(self, *, in_use: Collection[str] = ()) -> int:
        """Remove layers that belong to no built template; returns how many.

        Args:
            in_use: digests or paths of layers that running sandboxes still stand on.
        """
        with self._locked(lambda _: None):
            kept = {Path(layer).name for manifest in self.list() for layer in manifest.layers}
            self._layers.remove_leftovers()
            return self._layers.remove_except(kept | {Path(layer).name for layer in in_use})

    def _plan(self, recipe: Recipe) -> "Plan":
        planner = self._planner
        if planner is None:
            # Loaded here: starting a sandbox from a built template needs none of the builder.
            from cove.host.templates.plan import make_plan as planner
        return replace(planner(recipe, self._templates / ".interpreter"), owner=self._owner)

    def _read(self, name: str) -> TemplateManifest | None:
        if not _NAME.fullmatch(name):
            return None
        try:
            manifest = TemplateManifest.model_validate_json((self._templates / f"{name}.json").read_bytes())
        except (OSError, ValidationError):
            return None
        if manifest.base:
            base = self._read(manifest.base) if manifest.base in recipe_names() else None
            if base is None:
                return None
            manifest = on_base(manifest, base)
        return manifest if all(Path(layer).is_dir() for layer in manifest.layers) else None

    def _build(self, plan: "Plan", on_progress: OnProgress) -> TemplateManifest:
        self._layers.remove_leftovers()
        built = self._read(plan.recipe.name)
        if built is not None and built.digest == plan.digest:
            on_progress(BuildProgress(step="Up to date", fraction=1.0))
            return built
        missing = [layer for layer, digest in zip(plan.layers, plan.digests, strict=True) if not self._has(digest)]
        scale = ProgressScale(sum(layer.seconds for layer in missing) + CHECK_SECONDS, on_progress)
        records: list[LayerRecord] = []
        paths: list[Path] = []
        for layer, digest in zip(plan.layers, plan.digests, strict=True):
            record = self._layers.record(digest)
            if record is None:
                record = self._layers.build(layer, digest, tuple(reversed(paths)), scale.step(layer.seconds))
            records.append(record)
            paths.append(self._layers.path(digest))
        manifest = _manifest(plan, records, paths)
        if not _differs_in_guest_code_only(manifest, built):
            notes = self._check(plan, manifest, scale)
            manifest = manifest.model_copy(update={"notes": manifest.notes + notes})
        write_atomically(self._templates / f"{plan.recipe.name}.json", manifest.model_dump_json(indent=2))
        scale.finish("Built")
        return manifest

    def _has(self, digest: str) -> bool:
        return self._layers.record(digest) is not None

    def _check(self, plan: "Plan", manifest: TemplateManifest, scale: ProgressScale) -> tuple[str, ...]:
        from cove.host.templates.checks import run_checks

        return run_checks(
            plan.recipe.checks,
            tuple(Path(layer) for layer in manifest.layers),
            self._layers.directory / f"{STAGING}checks",
            environment=plan.environment,
            report=scale.step(CHECK_SECONDS),
        )

    @contextmanager
    def _locked(self, on_progress: OnProgress) -> Generator[None]:
        self._templates.mkdir(parents=True, exist_ok=True, mode=0o755)
        descriptor = os.open(self._templates / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _wait_for(descriptor, on_progress)
            yield
        finally:
            os.close(descriptor)


def _unheard(step: str, done: float) -> None:
    """Progress that nobody asked for."""


def _unseen(progress: BuildProgress) -> None:
    """The same of a whole build."""


def _opened_archive(held: ExitStack, builds: Path, archive: str) -> int:
    """A descriptor of the archive, if it is a plain file in a directory right below `builds`: no link is followed,
    whatever becomes of the names meanwhile."""
    if not _ARCHIVE.fullmatch(archive):
        raise error("INVALID_REQUEST", f"{archive[:64]!r} is no archive of a build.")
    directory, name = archive.split("/")
    try:
        with Beneath(str(builds)) as tree:
            descriptor = os.open(name, _READ_FILE, dir_fd=tree.directory((directory,)))
    except OSError as problem:
        raise error("INVALID_REQUEST", f"The archive {archive} cannot be read: {problem.strerror}.") from problem
    held.callback(os.close, descriptor)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise error("INVALID_REQUEST", f"The archive {archive} is no file.")
    return descriptor


def _wait_for(descriptor: int, on_progress: OnProgress) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            on_progress(BuildProgress(step="Waiting for another build", fraction=0.0))
        if time.monotonic() > deadline:
            raise error("CONFLICT", "Another build of templates runs in this data directory.", remedy="Try later.")
        time.sleep(LOCK_POLL)


def _differs_in_guest_code_only(new: TemplateManifest, old: TemplateManifest | None) -> bool:
    """Whether the checks passed before with all that they try: everything but the topmost layer."""
    return old is not None and new.layers[1:] == old.layers[1:] and new.environment == old.environment


def _manifest(plan: "Plan", records: list[LayerRecord], paths: list[Path]) -> TemplateManifest:
    packages = {name: version for record in records for name, version in record.packages.items()}
    return TemplateManifest(
        name=plan.recipe.name,
        display_name=plan.recipe.display_name,
        description=plan.recipe.description,
        category=plan.recipe.category,
        language=plan.recipe.language,
        features=plan.recipe.features,
        tags=plan.recipe.tags,
        digest=plan.digest,
        layers=tuple(str(path) for path in reversed(paths)),
        python=plan.interpreter.command,
        python_path=(AGENT_PATH,),
        preload=plan.recipe.preload,
        environment=plan.environment,
        languages=plan.recipe.languages,
        resources=plan.recipe.resources.model_dump(exclude_none=True),
        isolation=plan.recipe.isolation,
        network=plan.recipe.network,
        packages=dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        size_bytes=sum(record.size_bytes for record in records),
        notes=tuple(note for record in records for note in record.notes),
        run_as_root=plan.recipe.run_as_root,
        built_at=datetime.now(UTC),
    )
