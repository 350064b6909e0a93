"""What sandboxes trust for servers: a layer on top of each template, with its bundle and this host's own authority.

It is no part of the template, and no build makes it: templates that were built before, or by users, get it too, and a
new authority is trusted by the next sandbox.
"""

import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from cove.host.authority import Authority
from cove.host.templates.layers import digest_of_json
from cove.host.templates.rootfs import Rootfs, remove_tree, seal
from cove.linux.beneath import Beneath
from cove.models.errors import error
from cove.models.templates import TemplateManifest
from cove.models.trust import AUTHORITY, BUNDLE

_MAX_BUNDLE: Final = 4 * 1024 * 1024
_FILES: Final = (PurePosixPath(BUNDLE), PurePosixPath(AUTHORITY))


class TrustLayers:
    """Directories `<digest>` with two files each; templates with the same bundle share one."""

    def __init__(self, directory: Path, *, authority: Callable[[], Authority], owner: int | None) -> None:
        """
        Args:
            owner: as in `TemplateStore`.
        """
        self._directory = directory.absolute()
        self._authority = authority
        self._owner = owner

    def on_top_of(self, manifest: TemplateManifest) -> TemplateManifest:
        """The template as sandboxes stand on it. Blocks for milliseconds.

        Raises:
            CoveError: INTERNAL_ERROR: the authority is damaged, or the layer cannot be written.
        """
        manifest = self.without(manifest)
        try:
            layer = str(self._layer(manifest.layers))
        except OSError as problem:
            raise error(
                "INTERNAL_ERROR",
                f"The certificates that sandboxes trust cannot be written: {problem.strerror} ({problem.filename}).",
                remedy="Check space and permissions of the data directory.",
            ) from problem
        own = (layer, *manifest.own_layers) if manifest.own_layers else ()
        return manifest.model_copy(update={"layers": (layer, *manifest.layers), "own_layers": own})

    def without(self, manifest: TemplateManifest) -> TemplateManifest:
        """The template as it was built."""
        return manifest.model_copy(
            update={
                "layers": self._others(manifest.layers),
                "own_layers": self._others(manifest.own_layers),
            }
        )

    def _others(self, layers: Sequence[str]) -> tuple[str, ...]:
        return tuple(layer for layer in layers if Path(layer).parent != self._directory)

    def _layer(self, below: Sequence[str]) -> Path:
        certificate = self._authority().certificate.encode()
        bundle = _with(certificate, _bundle(below))
        modes = {str(directory): _mode(below, directory) for directory in _directories()}
        content = [hashlib.sha256(bundle).hexdigest(), hashlib.sha256(certificate).hexdigest()]
        path = self._directory / digest_of_json([content, modes, self._owner])
        if not path.is_dir():
            self._write(path, {BUNDLE: bundle, AUTHORITY: certificate}, modes)
        return path

    def _write(self, path: Path, files: dict[str, bytes], modes: dict[str, int]) -> None:
        """It has its name when all of it is on the disk; another process may be faster."""
        self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        staging = self._directory / f".building-{secrets.token_hex(8)}"
        try:
            rootfs = Rootfs(staging)
            rootfs.directory("/")
            for directory, mode in modes.items():
                rootfs.directory(directory, mode=mode)
            for name, content in files.items():
                rootfs.text(name, content.decode("utf-8", errors="replace"))
            seal(staging, self._owner)
            for name in files:
                _sync(rootfs.locate(name))
            try:
                staging.rename(path)
            except OSError:
                if not path.is_dir():
                    raise
        finally:
            remove_tree(staging)


def _directories() -> Iterator[PurePosixPath]:
    """Those that the files are in, the upper ones first."""
    yield from sorted({parent for file in _FILES for parent in file.parents if parent != PurePosixPath("/")})


def _bundle(layers: Sequence[str]) -> bytes:
    """The one that is seen in these layers, or else the host's; a user's build may have written it."""
    parent, name = _parts(PurePosixPath(BUNDLE).parent), PurePosixPath(BUNDLE).name
    for layer in layers:
        try:
            with Beneath(layer) as tree:
                found = _read(name, tree.directory(parent))
        except OSError:
            continue
        if found is not None:
            return found
    # Loaded here: it is a part of building, and seldom needed.
    from cove.host.templates.configuration import certificate_bundle

    return certificate_bundle().read_bytes()


def _read(name: str, directory: int) -> bytes | None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=directory), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _MAX_BUNDLE:
            return None
        return file.read(_MAX_BUNDLE)


def _mode(layers: Sequence[str], directory: PurePosixPath) -> int:
    """As it is seen in these layers: the topmost layer decides for all."""
    for layer in layers:
        try:
            with Beneath(layer) as tree:
                return stat.S_IMODE(os.fstat(tree.directory(_parts(directory))).st_mode) & 0o777
        except OSError:
            continue
    return 0o755


def _parts(path: PurePosixPath) -> tuple[str, ...]:
    return path.parts[1:]


def _with(certificate: bytes, bundle: bytes) -> bytes:
    if certificate in bundle:
        return bundle
    return (bundle if bundle.endswith(b"\n") else bundle + b"\n") + certificate


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
