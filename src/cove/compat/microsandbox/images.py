"""Images by name. None is fetched: a name stands for a template of the server."""

import re
from dataclasses import dataclass

from cove.models.errors import CoveError, error

_PYTHON_AND_NODE = "code-interpreter"
_OWN_IMAGES = {"microsandbox/python": _PYTHON_AND_NODE, "microsandbox/node": _PYTHON_AND_NODE}
_STAND_INS = {
    "python": _PYTHON_AND_NODE,
    "node": _PYTHON_AND_NODE,
    "golang": _PYTHON_AND_NODE,
    "debian": "base",
    "ubuntu": "base",
}
_REGISTRY = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?")
_VERSION = re.compile(r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z")


@dataclass(frozen=True, slots=True)
class Choice:
    """What an image comes to. `note` tells what is not as the name says; mostly empty."""

    template: str
    note: str = ""


def template_for(image: str | None) -> Choice:
    """The template that stands for `image`; without one, that of Python. A name that is nothing else is taken for that
    of a template."""
    if not image:
        return Choice(_PYTHON_AND_NODE)
    name = _REGISTRY.sub("", _VERSION.sub("", image.strip()), count=1)
    if name in _OWN_IMAGES:
        return Choice(_OWN_IMAGES[name])
    if name in _STAND_INS:
        template = _STAND_INS[name]
        return Choice(template, f"The image {image[:100]} is not fetched here; the template {template} stands for it.")
    return Choice(image.strip())


def unknown_image(image: str, templates: list[str]) -> CoveError:
    """The refusal of a name that stands for nothing; `templates` are those that there are."""
    return error(
        "TEMPLATE_NOT_FOUND",
        f"The image {image[:100]!r} is not available: this server fetches none.",
        remedy=f"Leave it out, or name one of: {', '.join([*_OWN_IMAGES, *templates])}.",
        names_tools=True,
    )
