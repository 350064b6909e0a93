"""Which shared objects a program needs, as the system's own dynamic loader finds them (ld.so(8), `--list`)."""

import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cove.host.templates.rootfs import is_trusted
from cove.models.errors import error

LIST_TIMEOUT = 20.0
_FOUND = re.compile(r"^\s*(?:\S+ => )?(/\S+) \(0x[0-9a-f]+\)$")
_MISSING = re.compile(r"^\s*(\S+) => not found$")
_LOADERS = ("/lib64/ld-linux-*.so.*", "/lib/ld-linux-*.so.*", "/usr/lib64/ld-linux-*.so.*", "/lib/ld64.so.*")


class MissingLibrary(Exception):
    """A program needs a shared object that the host lacks, or has outside the distribution's directories only."""


class DynamicLoader:
    """Asks the loader of the host; answers are kept for the life of this object."""

    def __init__(self) -> None:
        self.path = _find_loader()
        self._known: dict[Path, frozenset[str]] = {}

    def dependencies(self, program: Path, *, search: Iterable[str] = ()) -> frozenset[str]:
        """Absolute host paths of all shared objects that `program` loads, the loader itself included.

        Args:
            search: directories outside the distribution whose shared objects are accepted too.

        Raises:
            MissingLibrary: when one of them is not to be had.
        """
        if program not in self._known:
            self._known[program] = self._ask(program, tuple(search)) if is_elf(program) else frozenset()
        return self._known[program]

    def prefetch(self, programs: Iterable[Path], *, search: Iterable[str] = ()) -> None:
        """Ask for many programs at once; failures come up again in `dependencies`."""
        places = tuple(search)
        with ThreadPoolExecutor(max_workers=4) as pool:
            for program in set(programs):
                pool.submit(self._try, program, places)

    def library(self, soname: str) -> str | None:
        """Where the distribution keeps the shared object `soname`, or None."""
        for directory in self.directories():
            path = Path(directory, soname)
            if path.exists() and is_trusted(path.resolve()):
                return str(path)
        return None

    def directories(self) -> tuple[str, ...]:
        """The distribution's library directories: the multiarch ones first."""
        machine = [str(path.parent) for path in Path("/usr/lib").glob("*-linux-gnu*/libc.so.6")]
        return (*machine, "/usr/lib64", "/usr/lib")

    def _try(self, program: Path, search: tuple[str, ...]) -> None:
        try:
            self.dependencies(program, search=search)
        except MissingLibrary:
            return

    def _ask(self, program: Path, search: tuple[str, ...]) -> frozenset[str]:
        # The cache is inhibited because it also holds /usr/local and what else an administrator added.
        path = ":".join((*search, *self.directories()))
        listing = subprocess.run(
            [self.path, "--inhibit-cache", "--library-path", path, "--list", str(program)],
            env={"LC_ALL": "C"}, capture_output=True, text=True, timeout=LIST_TIMEOUT, check=False,
        )  # fmt: skip
        if listing.returncode != 0 and not listing.stdout:
            return frozenset()  # statically linked
        found: set[str] = set()
        for line in listing.stdout.splitlines():
            if missing := _MISSING.match(line):
                raise MissingLibrary(f"{program} needs {missing[1]}, which this host lacks")
            if match := _FOUND.match(line):
                found.add(_accept(match[1], program, search))
        return frozenset(found)


def is_elf(path: Path) -> bool:
    """Whether the file starts like an ELF object."""
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _accept(library: str, program: Path, search: tuple[str, ...]) -> str:
    real = Path(library).resolve()
    if is_trusted(real) or any(real.is_relative_to(Path(place).resolve()) for place in search):
        return library
    raise MissingLibrary(f"{program} needs {library}, which is not part of the distribution")


def _find_loader() -> str:
    for pattern in _LOADERS:
        for path in sorted(Path("/").glob(pattern.lstrip("/"))):
            return str(path)
    raise error(
        "TEMPLATE_BUILD_FAILED",
        "The dynamic loader of glibc was not found; templates are built from a glibc distribution.",
        remedy="Use Debian, Ubuntu or another distribution with glibc.",
    )
