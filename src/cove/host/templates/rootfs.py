"""Writing a root filesystem that holds copies, and nothing but copies, of trusted host files.

All paths of the host are mapped into the merged-/usr layout (`/bin/x` becomes `/usr/bin/x`); modes are reduced to
0644 and 0755, so that no set-uid program, device node or extended attribute gets in.
"""

import fnmatch
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
TRUSTED_ROOTS = ("/usr/bin", "/usr/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libexec", "/usr/share")


def merged(path: str | Path) -> PurePosixPath:
    """Where `path` of the host is in a merged-/usr root, absolute and without `..`."""
    pure = PurePosixPath(os.path.normpath(path))
    if len(pure.parts) > 1 and pure.parts[1] in MERGED:
        return PurePosixPath("/usr", *pure.parts[1:])
    return pure


def is_trusted(path: str | Path) -> bool:
    """Whether `path` belongs to the distribution (never /usr/local, /opt, /home, /root, /var, /etc)."""
    return any(merged(path).is_relative_to(root) for root in TRUSTED_ROOTS)


class Rootfs:
    """A root filesystem in the making, below the host directory `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def locate(self, inside: str | PurePosixPath) -> Path:
        """The host path of `inside`, an absolute path in the root filesystem."""
        return self.root / str(inside).lstrip("/")

    def directory(self, inside: str | PurePosixPath, *, mode: int = 0o755) -> Path:
        """Make a directory and its parents; `mode` is set exactly, whatever the umask."""
        path = self.locate(inside)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        return path

    def text(self, inside: str, content: str, *, mode: int = 0o644) -> None:
        """Write a small text file."""
        path = self.locate(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        path.chmod(mode)

    def link(self, inside: str | PurePosixPath, target: str | PurePosixPath) -> None:
        """Make `inside` a relative symbolic link to `target`, unless something is there already."""
        path = self.locate(inside)
        if path.is_symlink() or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        absolute = PurePosixPath(inside).parent / target
        path.symlink_to(os.path.relpath(absolute, PurePosixPath(inside).parent))

    def copy_file(self, source: str | Path, inside: str | PurePosixPath | None = None) -> Path:
        """Copy one file of the host and the link that leads to it; returns the host file that was copied."""
        real = Path(source).resolve(strict=True)
        name, target = (merged(source), merged(real)) if inside is None else (PurePosixPath(inside),) * 2
        destination = self.locate(target)
        if not destination.exists():
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(real, destination)
            _copy_mode_and_time(real, destination)
        if name != target:
            self.link(name, target)
        return real

    def copy_tree(
        self, source: Path, inside: str | PurePosixPath | None = None, *, exclude: Sequence[str] = ()
    ) -> None:
        """Copy a directory of the host. Links that lead out of it become copies when they lead to a trusted file,
        and are left out otherwise; so is everything that is not a file, a link or a directory.

        Args:
            exclude: glob patterns of relative paths; a directory that matches is left out whole.
        """
        target = merged(source) if inside is None else PurePosixPath(inside)
        top = source.resolve(strict=True)
        for path in _walk(top, exclude):
            relative = path.relative_to(top)
            if path.is_symlink():
                self._copy_link(path, top, target / relative)
            elif path.is_dir():
                self.directory(target / relative)
            elif path.is_file():
                self.copy_file(path, target / relative)

    def _copy_link(self, path: Path, top: Path, inside: PurePosixPath) -> None:
        real = Path(os.path.realpath(path))
        if real.is_relative_to(top):
            direct = path.parent / path.readlink()
            goal = direct if direct.is_relative_to(top) and ".." not in direct.parts else real
            self.link(inside, os.path.relpath(goal, path.parent))
        elif real.is_file() and is_trusted(real):
            self.copy_file(real, inside)


def _walk(top: Path, exclude: Sequence[str]) -> Iterator[Path]:
    yield top
    pending = [top]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                path = Path(entry.path)
                if matches(path.relative_to(top), exclude):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                yield path


def matches(relative: Path, patterns: Iterable[str]) -> bool:
    """Whether a relative path matches one of the glob patterns (`*` also matches `/`)."""
    return any(fnmatch.fnmatchcase(str(relative), pattern) for pattern in patterns)


def _copy_mode_and_time(source: Path, destination: Path) -> None:
    status = source.stat()
    destination.chmod(0o755 if status.st_mode & 0o111 else 0o644)
    os.utime(destination, ns=(status.st_mtime_ns, status.st_mtime_ns))


def seal(root: Path, owner: int | None) -> int:
    """Give every file below `root` its final owner and check what got in; returns disk use in bytes.

    Set-uid and set-gid bits are taken off; what is not a file, directory or link is removed.
    """
    size = 0
    for directory, names, filenames in os.walk(root):
        base = Path(directory)
        for path in (base, *(base / name for name in filenames), *(base / name for name in names)):
            size += _seal_one(path, owner) if path == base or not path.is_dir() or path.is_symlink() else 0
    return size


def _seal_one(path: Path, owner: int | None) -> int:
    status = path.lstat()
    kind = status.st_mode & 0o170000
    if kind not in (0o100000, 0o040000, 0o120000):
        path.unlink()
        return 0
    if owner is not None and (status.st_uid, status.st_gid) != (owner, owner):
        os.lchown(path, owner, owner)
    if kind != 0o120000 and status.st_mode & 0o6000:
        path.chmod(status.st_mode & 0o1777)
    return status.st_blocks * 512


def remove_tree(path: Path) -> None:
    """Remove a directory tree whatever its modes are; a missing one is fine."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    for directory, names, _ in os.walk(path):
        for name in names:
            child = Path(directory, name)
            # An overlay's work directory has mode 000: its owner could not list it otherwise.
            if not child.is_symlink() and not os.access(child, os.R_OK | os.W_OK | os.X_OK):
                child.chmod(0o700)
    shutil.rmtree(path)
