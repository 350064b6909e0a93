"""The lowest layer: what programs need of the host's distribution, as copies, and a synthesised /etc."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cove.host.templates.commands import find_command, script_interpreter
from cove.host.templates.configuration import certificate_bundle, static_files, write_directories, write_etc
from cove.host.templates.interpreter import Interpreter
from cove.host.templates.layers import Workspace
from cove.host.templates.loader import DynamicLoader, MissingLibrary, is_elf
from cove.host.templates.python_tree import compile_tree, copy_interpreter
from cove.host.templates.recipes import HostRecipe
from cove.host.templates.rootfs import merged
from cove.models.errors import error

LDCONFIG_TIMEOUT = 60.0


class HostLayer:
    """Commands, their shared objects and data, the interpreter, and /etc."""

    kind = "host"
    seconds = 12.0

    def __init__(self, recipe: HostRecipe, interpreter: Interpreter) -> None:
        self._recipe = recipe
        self._interpreter = interpreter

    def inputs(self) -> Mapping[str, Any]:
        """The recipe, and size and time of every command and of what changes when libraries are upgraded."""
        names = (*self._recipe.required, *self._recipe.optional)
        watched = ["/etc/ld.so.cache", "/usr/lib/os-release", str(certificate_bundle()), self._interpreter.executable]
        return {
            "recipe": self._recipe.model_dump(mode="json"),
            "interpreter": self._interpreter.model_dump(mode="json"),
            "etc": static_files(),
            "commands": {name: _stamp(path) for name in names if (path := find_command(name)) is not None},
            "watched": {path: _stamp(Path(path)) for path in watched},
        }

    def build(self, work: Workspace) -> None:
        """Copy, then configure."""
        copier = _Copier(work)
        work.report("Copying programs of the host", 0.0)
        write_directories(work.rootfs)
        self._copy_commands(copier)
        work.report("Copying libraries and data of the host", 0.3)
        self._copy_libraries(copier)
        for tree in self._trees():
            copier.tree(tree)
        work.report("Copying Python", 0.5)
        copy_interpreter(work.rootfs, self._interpreter, exclude=self._recipe.stdlib_exclude)
        copier.complete(search=(f"{self._interpreter.prefix}/lib",) if self._interpreter.relocated else ())
        self._record_commands(work)
        work.report("Writing /etc", 0.7)
        write_etc(work.rootfs, libraries=copier.loader.directories(), cafile=self._interpreter.cafile)
        _write_loader_cache(work)
        work.report("Compiling Python's standard library", 0.75)
        compile_tree(work.rootfs, self._interpreter, self._interpreter.inside(self._interpreter.stdlib))

    def _copy_commands(self, copier: "_Copier") -> None:
        for name in self._recipe.required:
            path = find_command(name)
            if path is None or not copier.command(path):
                raise error(
                    "TEMPLATE_BUILD_FAILED", f"The host has no working `{name}` in {_places()}.",
                    remedy="Run: apt-get install bash coreutils grep sed",
                )  # fmt: skip
        for name in self._recipe.optional:
            path = find_command(name)
            if path is None:
                copier.skip(name, "the host has none")
            else:
                copier.command(path)

    def _copy_libraries(self, copier: "_Copier") -> None:
        for name in (*self._recipe.libraries, *self._recipe.optional_libraries):
            path = copier.loader.library(name)
            if path is not None:
                copier.work.rootfs.copy_file(path)
            elif name in self._recipe.libraries:
                raise error(
                    "TEMPLATE_BUILD_FAILED", f"The host lacks {name}, which Python packages need.",
                    remedy="Run: apt-get install libc6 libgcc-s1 libstdc++6 zlib1g",
                )  # fmt: skip

    def _trees(self) -> Iterator[Path]:
        for pattern in self._recipe.trees:
            yield from sorted(Path("/").glob(pattern.lstrip("/")))

    def _record_commands(self, work: Workspace) -> None:
        major, minor, micro = self._interpreter.version
        work.packages["python"] = f"{major}.{minor}.{micro}"


class _Copier:
    """Copies programs together with what they need; remembers what was skipped."""

    def __init__(self, work: Workspace) -> None:
        self.work = work
        self.loader = DynamicLoader()

    def skip(self, name: str, reason: str) -> None:
        self.work.notes.append(f"{name}: left out, {reason}")

    def command(self, path: Path) -> bool:
        """Copy one command; False, with a note, when something that it needs is missing."""
        real = path.resolve()
        try:
            libraries = self.loader.dependencies(real)
            script = script_interpreter(real)
            if script is not None and not self._interpreter(path.name, script):
                return False
        except MissingLibrary as problem:
            self.skip(path.name, str(problem))
            return False
        self.work.rootfs.copy_file(path)
        for library in libraries:
            self.work.rootfs.copy_file(library)
        return True

    def _interpreter(self, name: str, interpreter: str) -> bool:
        path = find_command(interpreter)
        if path is None or interpreter.startswith("python"):
            self.skip(name, f"it is a script for {interpreter}")
            return False
        return self.work.rootfs.locate(merged(path)).exists() or self.command(path)

    def tree(self, path: Path) -> None:
        """Copy data that programs read."""
        if path.is_dir():
            self.work.rootfs.copy_tree(path, exclude=("*/localtime", "localtime", "posix", "right", "posixrules"))
        elif path.is_file():
            self.work.rootfs.copy_file(path)

    def complete(self, *, search: tuple[str, ...]) -> None:
        """Give every ELF object in the layer its shared objects; those that cannot be satisfied are removed."""
        usr = self.work.rootfs.locate("/usr")
        objects = [path for path in _regular_files(usr) if is_elf(path)]
        # A run path of `$ORIGIN` finds libraries that are in the layer already.
        accepted = (*search, str(usr))
        self.loader.prefetch(objects, search=accepted)
        for path in objects:
            try:
                for library in self.loader.dependencies(path, search=accepted):
                    if not Path(library).is_relative_to(usr):
                        self.work.rootfs.copy_file(library, _library_place(library, search))
            except MissingLibrary as problem:
                path.unlink()
                self.skip(f"/{path.relative_to(self.work.rootfs.root)}", str(problem))


def _library_place(library: str, search: tuple[str, ...]) -> str | None:
    inside = [place for place in search if Path(library).is_relative_to(place)]
    return f"/usr/local/lib/{Path(library).name}" if inside else None


def _regular_files(top: Path) -> Iterator[Path]:
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            if not path.is_symlink():
                yield path


def _write_loader_cache(work: Workspace) -> None:
    """Make /etc/ld.so.cache with the host's ldconfig(8). Without it programs start too, a little slower."""
    command, unshare = find_command("ldconfig"), find_command("unshare")
    # `ldconfig -r` calls chroot(2); an ordinary user may in a user namespace of his own.
    prefix = [] if os.geteuid() == 0 else [str(unshare), "--user", "--map-root-user"]
    if command is None or (prefix and unshare is None):
        work.notes.append("ld.so.cache: left out, the host has no ldconfig")
        return
    done = subprocess.run(
        [*prefix, str(command), "-r", str(work.rootfs.root)],
        env={"LC_ALL": "C"},
        capture_output=True,
        timeout=LDCONFIG_TIMEOUT,
        check=False,
    )
    if done.returncode != 0:
        work.notes.append("ld.so.cache: left out, ldconfig failed")
    work.rootfs.locate("/var/cache/ldconfig/aux-cache").unlink(missing_ok=True)


def _stamp(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return []
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


def _places() -> str:
    return "/usr/bin, /bin, /usr/sbin"
