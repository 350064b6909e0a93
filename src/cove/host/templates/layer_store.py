"""Built layers on disk: `layers/<digest>/` and what is remembered of each in `layers/<digest>.json`."""

import os
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path

from pydantic import ValidationError

from cove.host.templates.layers import Layer, LayerRecord, StepReporter, Workspace
from cove.host.templates.rootfs import Rootfs, remove_tree, seal

STAGING = ".building-"


class LayerStore:
    """Writers hold the template store's lock; readers need none, since a layer appears by one rename."""

    def __init__(self, directory: Path, *, owner: int | None) -> None:
        self.directory = directory
        self._owner = owner

    def path(self, digest: str) -> Path:
        """The directory of a layer, built or not."""
        return self.directory / digest

    def record(self, digest: str) -> LayerRecord | None:
        """What is known of a built layer; None when it is not built."""
        if not self.path(digest).is_dir():
            return None
        try:
            return LayerRecord.model_validate_json(self._record_path(digest).read_bytes())
        except (OSError, ValidationError):
            return None

    def build(self, layer: Layer, digest: str, below: Sequence[Path], report: StepReporter) -> LayerRecord:
        """Build a layer beside the others and rename it into place; a failure leaves nothing.

        Args:
            below: built layers under it, the topmost first.

        Raises:
            CoveError: what `Layer.build` raises.
            OSError: for example when the disk is full.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        staging = self.directory / f"{STAGING}{secrets.token_hex(4)}"
        root, scratch = staging / "root", staging / "scratch"
        try:
            root.mkdir(parents=True)
            scratch.mkdir()
            root.chmod(0o755)
            work = Workspace(Rootfs(root), scratch, tuple(below), report)
            layer.build(work)
            size = seal(root, self._owner)
            record = LayerRecord(
                kind=layer.kind, digest=digest, packages=work.packages, notes=tuple(work.notes), size_bytes=size
            )
            # A layer that exists is never looked at again: it must be on disk before it gets its name.
            os.sync()
            write_atomically(self._record_path(digest), record.model_dump_json(indent=2))
            remove_tree(self.path(digest))
            root.rename(self.path(digest))
        finally:
            remove_tree(staging)
        return record

    def remove_leftovers(self) -> None:
        """Remove what builds that were killed have left. Needs the lock."""
        if self.directory.is_dir():
            for path in self.directory.glob(f"{STAGING}*"):
                remove_tree(path)

    def remove(self, digests: Collection[str]) -> None:
        """Remove these layers. Needs the lock."""
        for digest in digests:
            self._record_path(digest).unlink(missing_ok=True)
            remove_tree(self.path(digest))

    def remove_except(self, keep: Collection[str]) -> int:
        """Remove all layers but those in `keep` (digests); returns how many. Needs the lock."""
        removed = 0
        for path in self.directory.iterdir() if self.directory.is_dir() else ():
            digest = path.name.removesuffix(".json")
            if digest in keep:
                continue
            removed += path.is_dir()
            remove_tree(path)
        return removed

    def _record_path(self, digest: str) -> Path:
        return self.directory / f"{digest}.json"


def write_atomically(path: Path, content: str) -> None:
    """Replace a file so that readers see the old content or the new one, also after a power failure."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
