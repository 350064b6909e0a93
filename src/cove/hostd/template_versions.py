"""Manifests of the template versions that sandboxes were made of: a stopped one is started on the very same layers,
whatever was built under that name since."""

import contextlib
import hashlib
from collections.abc import Collection
from pathlib import Path

import pydantic

from cove.models.templates import TemplateManifest


class TemplateVersions:
    """One file a version, by digest, written when the first sandbox is made of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: set[str] = set()

    def keep(self, manifest: TemplateManifest) -> None:
        """Remember a version. Idempotent.

        Raises:
            OSError: it cannot be written.
        """
        if manifest.digest in self._kept:
            return
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(manifest.digest)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(manifest.model_dump_json().encode())
        fresh.rename(path)
        self._kept.add(manifest.digest)

    def find(self, digest: str) -> TemplateManifest | None:
        """The version, or None when it, or one of its layers, is no more."""
        try:
            manifest = TemplateManifest.model_validate_json(self._path(digest).read_bytes())
        except (OSError, pydantic.ValidationError):
            return None
        return manifest if is_version(manifest, digest) else None

    def forget_except(self, digests: Collection[str]) -> None:
        """Drop the versions that no sandbox stands on."""
        names = {self._path(digest).name for digest in digests}
        self._kept.intersection_update(digests)
        for path in self._directory.glob("*"):
            if path.name not in names:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _path(self, digest: str) -> Path:
        """A digest comes from a manifest: it need not be a good name for a file."""
        return self._directory / f"{hashlib.blake2b(digest.encode(), digest_size=16).hexdigest()}.json"


def is_version(manifest: TemplateManifest, digest: str) -> bool:
    """Whether this is the version with that digest, with all its layers there."""
    return manifest.digest == digest and all(Path(layer).is_dir() for layer in manifest.layers)
