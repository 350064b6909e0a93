"""What a build may stand on: templates of this server, also under the names of the images that clients ask for.

No image is fetched: `python:3.12-slim` is answered with the template that has Python, and the build's log says so.
"""

import re

from cove.core.catalog import CatalogEntry, TemplateCatalog
from cove.models.errors import error

_STAND_INS = (
    (re.compile(r"(docker\.io/)?(library/)?(python|node|golang)(:.*)?"), "code-interpreter"),
    (re.compile(r"(docker\.io/)?(library/)?(ubuntu|debian)(:.*)?"), "base"),
)


async def find_base(catalog: TemplateCatalog, image: str, namespace: str) -> CatalogEntry:
    """The template that stands for an image; never one that was itself derived.

    Raises:
        CoveError: INVALID_REQUEST for an image that nothing here stands for; TEMPLATE_NOT_BUILT.
    """
    name = next((template for pattern, template in _STAND_INS if pattern.fullmatch(image)), image)
    public = [entry for entry in catalog.all(namespace) if not entry.template.namespace]
    entry = next((one for one in public if one.template.name == name), None)
    if entry is None:
        names = ", ".join(sorted(one.template.name for one in public))
        raise error(
            "INVALID_REQUEST",
            f"The image {image[:200]!r} is not available: this server fetches none.",
            remedy=f"Build on one of: {names}; python:*, node:*, golang:*, ubuntu:* and debian:* stand for these too.",
            field="from_image",
        )
    if not entry.built:
        raise error("TEMPLATE_NOT_BUILT", f"Template {name!r} is not built on this host.")
    return entry
