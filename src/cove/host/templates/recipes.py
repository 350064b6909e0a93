"""What a template is made of, as written in the TOML files beside this module."""

import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

from pydantic import ValidationError

from cove.models.base import Contract
from cove.models.errors import error
from cove.models.isolation import Isolation
from cove.models.network import NetworkPolicy
from cove.models.sandboxes import ResourcesRequest

HOST_RECIPE = "host"

ContractT = TypeVar("ContractT", bound=Contract)


class HostRecipe(Contract):
    """What is copied from the host into the layer that all templates share.

    Attributes:
        required: commands without which no template is built.
        optional: commands that are left out, with a note, where the host lacks them.
        libraries: shared objects that wheels expect of any Linux (the manylinux promise).
        optional_libraries: shared objects that are taken along where the host has them.
        trees: files and directories below /usr (glob patterns) that the commands read at run time.
        stdlib_exclude: glob patterns, relative to Python's standard library, that are left out.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...]
    libraries: tuple[str, ...]
    optional_libraries: tuple[str, ...]
    trees: tuple[str, ...]
    stdlib_exclude: tuple[str, ...]


class PythonRecipe(Contract):
    """Python packages of one template.

    Attributes:
        requirements: PEP 508 requirements, as ranges.
        prune: glob patterns, relative to the packages directory, that are removed (test suites).
        font_cache: whether matplotlib's index of fonts is made in advance.
    """

    requirements: tuple[str, ...]
    prune: tuple[str, ...] = ()
    font_cache: bool = False


class GoRecipe(Contract):
    """The Go toolchain of one template: its wheel, and the standard packages that are compiled in advance."""

    requirement: str
    warm: tuple[str, ...]


class NodeRecipe(Contract):
    """The Node toolchain of one template: its wheel."""

    requirement: str


class Recipe(Contract):
    """One template before it is built.

    Attributes:
        preload: modules that the warm process imports.
        checks: commands that must succeed inside the built root filesystem.
        resources, isolation, network: of its sandboxes, where they ask for none; see `TemplateManifest`.
        run_as_root: see `TemplateManifest`.
    """

    name: str
    display_name: str
    description: str
    category: str
    language: str
    features: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...]
    preload: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    checks: tuple[tuple[str, ...], ...] = ()
    run_as_root: bool = False
    python: PythonRecipe
    node: NodeRecipe | None = None
    go: GoRecipe | None = None
    resources: ResourcesRequest = ResourcesRequest()
    isolation: Isolation | None = None
    network: NetworkPolicy | None = None


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of the templates that can be built."""
    stems = (entry.name.removesuffix(".toml") for entry in _directory().iterdir() if entry.name.endswith(".toml"))
    return tuple(sorted(stem for stem in stems if stem != HOST_RECIPE))


@cache
def load_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        CoveError: TEMPLATE_NOT_FOUND.
    """
    # Compared with the known names, so that no name can lead out of the directory.
    if name not in recipe_names():
        raise error("TEMPLATE_NOT_FOUND", f"There is no template {name!r}; known: {', '.join(recipe_names())}.")
    return _load(name, Recipe)


@cache
def load_host_recipe() -> HostRecipe:
    """What the shared host layer is made of."""
    return _load(HOST_RECIPE, HostRecipe)


def _directory() -> Traversable:
    return files("cove.host.templates") / "recipes"


def _load(name: str, model: type[ContractT]) -> ContractT:
    try:
        table: dict[str, Any] = tomllib.loads((_directory() / f"{name}.toml").read_text(encoding="utf-8"))
        return model.model_validate(table)
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as problem:
        raise error("TEMPLATE_BUILD_FAILED", f"The recipe {name!r} cannot be read: {problem}") from problem
