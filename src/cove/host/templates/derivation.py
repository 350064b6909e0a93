"""Templates that are made of another one and of what a build left in a sandbox."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cove.host.templates.layers import digest_of_json
from cove.models.templates import TemplateDerivation, TemplateManifest


def derived(
    derivation: TemplateDerivation, base: TemplateManifest, layer: Path, *, size_bytes: int
) -> TemplateManifest:
    """The manifest of a new template: `layer` on top of `base`."""
    return on_base(
        TemplateManifest(
            name=derivation.name,
            display_name=derivation.display_name,
            description=derivation.description,
            digest="",
            layers=(str(layer),),
            own_layers=(str(layer),),
            own_environment=derivation.environment,
            owned_directories=derivation.owned_directories,
            start_command=derivation.start_command,
            limits=derivation.limits,
            isolation=derivation.isolation,
            network=derivation.network,
            run_as_root=derivation.run_as_root or base.run_as_root,
            python=base.python,
            base=derivation.base,
            size_bytes=size_bytes,
            built_at=datetime.now(UTC),
        ),
        base,
    )


def on_base(manifest: TemplateManifest, base: TemplateManifest) -> TemplateManifest:
    """A derived template on what its base is now: a new build of the base (another agent, other packages) reaches
    every template above it."""
    own: dict[str, Any] = {
        "layers": manifest.own_layers,
        "environment": manifest.own_environment,
        "directories": manifest.owned_directories,
        "start": manifest.start_command,
    }
    if manifest.run_as_root:
        own["root"] = True
    return manifest.model_copy(
        update={
            "digest": digest_of_json([base.digest, own]),
            "layers": (*manifest.own_layers, *base.layers),
            "environment": {**base.environment, **manifest.own_environment},
            "python": base.python,
            "python_path": base.python_path,
            "preload": base.preload,
            "languages": base.languages,
            "language": base.language,
            "category": base.category,
            "features": base.features,
            "packages": base.packages,
        }
    )
