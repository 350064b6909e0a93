"""From a recipe to the layers that it needs on this host."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cove.host.templates.agent_layer import AgentLayer, AgentRequirementsLayer
from cove.host.templates.go_layer import GoLayer
from cove.host.templates.host_layer import HostLayer
from cove.host.templates.interpreter import Interpreter, find_interpreter
from cove.host.templates.layers import Layer, digest_of, digest_of_json
from cove.host.templates.node_layer import NodeLayer
from cove.host.templates.packages_layer import PackagesLayer
from cove.host.templates.paths import (
    AGENT_PATH,
    BASE_ENVIRONMENT,
    GO_ENVIRONMENT,
    NODE_ENVIRONMENT,
    PLOT_ENVIRONMENT,
)
from cove.host.templates.recipes import Recipe, load_host_recipe


@dataclass(frozen=True)
class Plan:
    """What a template would be made of if it were built now.

    Attributes:
        layers: the lowest first.
        owner: user id that will own all files, if not the user who builds.
    """

    recipe: Recipe
    interpreter: Interpreter
    layers: tuple[Layer, ...]
    owner: int | None = None

    @cached_property
    def digests(self) -> tuple[str, ...]:
        """Content addresses of the layers, the lowest first."""
        return tuple(digest_of(layer, owner=self.owner) for layer in self.layers)

    @cached_property
    def digest(self) -> str:
        """Content address of the whole template."""
        recipe = self.recipe
        parts: list[object] = [self.digests, self.environment, recipe.preload, recipe.languages]
        parts += [self.interpreter.command, AGENT_PATH]
        asked = recipe.resources.model_dump(exclude_none=True)
        if asked or recipe.isolation:
            parts.append([asked, recipe.isolation])
        if recipe.network is not None:
            parts.append({"network": recipe.network.model_dump(mode="json")})
        return digest_of_json([*parts, "root"] if recipe.run_as_root else parts)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of every process inside."""
        variables = dict(BASE_ENVIRONMENT)
        if self.recipe.python.font_cache:
            variables |= PLOT_ENVIRONMENT
        if self.recipe.node is not None:
            variables |= NODE_ENVIRONMENT
        if self.recipe.go is not None:
            variables |= GO_ENVIRONMENT
        return variables | self.recipe.environment


def make_plan(recipe: Recipe, memory: Path | None = None) -> Plan:
    """The layers of `recipe` with this host's interpreter, the shared and seldom changed ones lowest.

    Args:
        memory: a file in which the interpreter's answers are kept.

    Raises:
        CoveError: TEMPLATE_BUILD_FAILED when the host has no usable Python.
    """
    interpreter = find_interpreter(memory)
    layers: list[Layer] = [HostLayer(load_host_recipe(), interpreter)]
    if recipe.node is not None:
        layers.append(NodeLayer(recipe.node, interpreter))
    if recipe.go is not None:
        layers.append(GoLayer(recipe.go, interpreter))
    layers.append(PackagesLayer(recipe.python, interpreter))
    layers.append(AgentRequirementsLayer(interpreter))
    layers.append(AgentLayer(interpreter))
    return Plan(recipe, interpreter, tuple(layers))
