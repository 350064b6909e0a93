import pytest

from cove.host.templates.recipes import load_host_recipe, load_recipe, recipe_names
from cove.models.errors import NotFound


def test_shipped_recipes() -> None:
    assert recipe_names() == ("base", "code-interpreter")


@pytest.mark.parametrize("name", ["base", "code-interpreter"])
def test_each_recipe_is_complete(name: str) -> None:
    recipe = load_recipe(name)

    assert recipe.name == name
    assert {"python", "bash"} <= set(recipe.languages)
    assert ("javascript" in recipe.languages) == (recipe.node is not None)
    assert ("go" in recipe.languages) == (recipe.go is not None)
    assert recipe.checks
    installed = {requirement.split(">")[0] for requirement in recipe.python.requirements}
    assert {"ipython", "pip"} <= installed


@pytest.mark.parametrize("name", ["", "host", "../recipes/base", "base.toml", "BASE", "nothing", "a\0b"])
def test_an_unknown_name_says_what_is_known(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        load_recipe(name)
    assert caught.value.code == "TEMPLATE_NOT_FOUND"
    assert "base, code-interpreter" in caught.value.message


def test_host_recipe_brings_nothing_that_changes_users_or_mounts() -> None:
    host = load_host_recipe()
    commands = {*host.required, *host.optional}

    assert not commands & {"su", "sudo", "mount", "umount", "passwd", "newgrp", "chroot", "ssh", "ping", "login"}
    assert all(tree.startswith(("/usr/", "/lib/")) and not tree.startswith("/usr/local") for tree in host.trees)
