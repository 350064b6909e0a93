"""Layers: directories with a content address, stacked into a root filesystem."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cove.host.templates.rootfs import Rootfs
from cove.models.base import Contract

FORMAT = 1
"""Raised whenever this code would make something else of the same inputs."""

StepReporter = Callable[[str, float], None]
"""Told a short phrase and how much of the layer is done, 0.0 to 1.0."""


class LayerRecord(Contract):
    """What is remembered of a built layer, beside its directory.

    Attributes:
        kind: for example `packages`.
        packages: name -> version of what was installed.
        notes: what was left out, and why.
        size_bytes: disk use.
    """

    kind: str
    digest: str
    packages: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    size_bytes: int = 0


@dataclass
class Workspace:
    """Where a layer is built.

    Attributes:
        rootfs: becomes the layer.
        scratch: an empty directory on the same filesystem, removed afterwards.
        below: layers below this one, the topmost first.
        report: progress within this layer.
        packages: filled in by the layer.
        notes: filled in by the layer.
    """

    rootfs: Rootfs
    scratch: Path
    below: tuple[Path, ...]
    report: StepReporter
    packages: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])


class Layer(Protocol):
    """One kind of layer with its inputs.

    Attributes:
        kind: a name for people.
        seconds: how long a build takes, roughly; used to weigh progress only.
    """

    @property
    def kind(self) -> str: ...

    @property
    def seconds(self) -> float: ...

    def inputs(self) -> Mapping[str, Any]:
        """Everything that decides the content, JSON-compatible; found without building, in milliseconds."""
        ...

    def build(self, work: Workspace) -> None:
        """Fill `work.rootfs`.

        Raises:
            CoveError: TEMPLATE_BUILD_FAILED, DISK_FULL, NETWORK_ERROR.
        """
        ...


def digest_of(layer: Layer, *, owner: int | None = None) -> str:
    """The content address of a layer: 32 hexadecimal digits (mount options are limited to one page).

    Args:
        owner: user id that will own its files, if not the user who builds.
    """
    return digest_of_json({"format": FORMAT, "kind": layer.kind, "owner": owner, "inputs": layer.inputs()})


def digest_of_json(value: object) -> str:
    """Hash of a JSON-compatible value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
