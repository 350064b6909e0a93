"""Configurations, images and names as clients send them."""

from typing import Any

import pytest
from pydantic import ValidationError

from cove.compat.microsandbox.config import SandboxConfig
from cove.compat.microsandbox.images import template_for
from cove.compat.microsandbox.names import made_up_by_client, named
from cove.models.errors import InvalidRequest


@pytest.mark.parametrize(("cpus", "expected"), [(1, 1), (0, 1), (0.4, 1), (1.5, 2), (2.6, 3), ("2", 2), (None, None)])
def test_processors_are_whole_numbers(cpus: Any, expected: int | None) -> None:
    assert SandboxConfig(cpus=cpus).cpus == expected


@pytest.mark.parametrize("cpus", [-1, -0.4, float("nan"), float("inf"), True, "many", 257])
def test_processors_that_cannot_be(cpus: Any) -> None:
    with pytest.raises(ValidationError):
        SandboxConfig(cpus=cpus)


def test_everything_may_be_null_or_absent() -> None:
    names = SandboxConfig.model_fields
    assert SandboxConfig.model_validate(dict.fromkeys(names)) == SandboxConfig.model_validate({"beyond": 1})
    assert SandboxConfig().resources is None


def test_variables_and_ports() -> None:
    config = SandboxConfig.model_validate({"envs": ["A=1", "B==", "A=2"], "ports": ["80", "8080:80", "1:2/tcp"]})
    assert config.variables == {"A": "2", "B": "="}
    assert config.guest_ports == (80, 2)


def test_a_secret_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as refused:
        SandboxConfig.model_validate({"envs": ["OK=1", "hush"]})
    [problem] = refused.value.errors(include_input=False)
    assert "entry 2" in problem["msg"]
    assert "hush" not in problem["msg"]


@pytest.mark.parametrize(
    ("image", "template", "noted"),
    [
        (None, "code-interpreter", False),
        ("", "code-interpreter", False),
        ("microsandbox/python", "code-interpreter", False),
        ("docker.io/microsandbox/node:latest", "code-interpreter", False),
        ("python", "code-interpreter", True),
        ("library/python:3.12-slim", "code-interpreter", True),
        ("node:20", "code-interpreter", True),
        ("ubuntu@sha256:" + "a" * 64, "base", True),
        ("base", "base", False),
        ("my-template", "my-template", False),
        ("evil/microsandbox/python", "evil/microsandbox/python", False),
        ("pythonx", "pythonx", False),
    ],
)
def test_images_stand_for_templates(image: str | None, template: str, noted: bool) -> None:
    choice = template_for(image)
    assert (choice.template, bool(choice.note)) == (template, noted)


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a/b", "a\n", "ä", "a" * 64, "*", ".."])
def test_names_that_cannot_be(name: str) -> None:
    with pytest.raises(InvalidRequest, match="1 to 63"):
        named("sandbox", name)


def test_names() -> None:
    for name in ("a", "A-b_9", "0", "a" * 63):
        assert named("sandbox", name) == name
    assert made_up_by_client("sandbox-0123abcd")
    assert not made_up_by_client("sandbox-mine")


def test_limits_that_nobody_chose() -> None:
    assert SandboxConfig(memory=512, cpus=1).limits_are_the_clients_own
    assert not SandboxConfig(memory=256, cpus=1).limits_are_the_clients_own
    assert not SandboxConfig().limits_are_the_clients_own
