"""The builder of `hopx-ai`, unmodified: a template of one's own in a few seconds."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.interop import hopx

template: Any = importlib.import_module("hopx_ai.template")
Template, BuildOptions = template.Template, template.BuildOptions
Sandbox, errors = hopx.client.Sandbox, hopx.errors
There = dict[str, Any]

pytestmark = pytest.mark.anyio


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """What is copied from."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.py").write_text("print('from the template')\n")
    (tmp_path / "app" / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tmp_path / "app" / "run.sh").chmod(0o755)
    (tmp_path / "notes.txt").write_text("notes\n")
    return tmp_path


def options(there: There, name: str, context: Path, **more: Any) -> Any:
    return BuildOptions(name=name, context_path=str(context), cpu=1, memory=512, disk_gb=1, **there, **more)


def duration_of(there: There, build_id: str) -> float:
    """Seconds that the server took. (The client looks every two and three seconds, and twice at the end.)"""
    answer = httpx.get(f"{there['base_url']}/v1/templates/build/{build_id}/status").json()
    return answer["build_duration_ms"] / 1000


def noted(said: list[str]) -> Callable[[dict[str, str]], None]:
    """Takes the client's entries of the log."""
    return lambda entry: said.append(entry["message"])


@pytest.fixture
def removed(there: There) -> Iterator[list[str]]:
    """Ids of templates to delete at the end."""
    ids: list[str] = []
    yield ids
    for number in ids:
        Sandbox.delete_template(number, **there)


async def test_a_build(there: There, context: Path, removed: list[str]) -> None:
    said: list[str] = []
    recipe = (
        Template()
        .from_python_image("3.11-slim")
        .copy("app/", "/app/")
        .copy("notes.txt", "/workspace/notes/first.txt")
        .set_env("GREETING", "hello")
        .set_workdir("/app")
        .run_cmd('echo "$GREETING from $PWD" > /home/user/made.txt')
        .run_cmd("python3 main.py > out.txt")
    )
    built = await Template.build(recipe, options(there, "mine", context, on_log=noted(said)))
    removed.append(built.template_id)
    assert duration_of(there, built.build_id) < 8
    assert "RUN" in "".join(said)
    with Sandbox.create("mine", timeout_seconds=120, **there) as sandbox:
        info = sandbox.get_info()
        assert (info.template_name, info.resources.memory_mb) == ("mine", 512)
        done = sandbox.commands.run(
            'cat /home/user/made.txt /app/out.txt /workspace/notes/first.txt; /app/run.sh; echo "$GREETING";'
            " touch /app/mine /workspace/notes/mine && echo >> /home/user/made.txt && echo writable"
        )
        assert done.stdout.splitlines() == [
            *("hello from /app", "from the template", "notes", "ran", "hello", "writable"),
        ], done.stderr
        assert sandbox.run_code("import numpy; print(1)").stdout == "1\n"
    shown = Sandbox.get_template(built.template_id, **there)
    assert (shown.name, shown.is_active, shown.status, shown.is_public) == ("mine", True, "active", False)


async def test_a_machine_from_a_build(there: There, context: Path, removed: list[str]) -> None:
    recipe = (
        Template()
        .from_ubuntu_image("22.04")
        .run_cmd("true")
        .set_start_cmd("python3 -m http.server 8123", template.wait_for_port(8123))
    )
    built = await Template.build(recipe, options(there, "serving", context))
    removed.append(built.template_id)
    machine = await built.create_vm(template.CreateVMOptions(env_vars={"A": "1"}))
    try:
        sandbox = Sandbox.connect(machine.vm_id, **there)
        asked = sandbox.commands.run(
            "for i in $(seq 200); do curl -fs http://127.0.0.1:8123/ >/dev/null && echo up && break; done; echo $A"
        )
        assert asked.stdout == "up\n1\n"
        hopx.close(sandbox)
    finally:
        await machine.delete()


async def test_a_step_that_fails(there: There, context: Path, removed: list[str]) -> None:
    recipe = Template().from_python_image("3.11").run_cmd("echo before; echo the reason >&2; exit 3")
    with pytest.raises(errors.TemplateBuildError, match="the reason") as failed:
        await Template.build(recipe, options(there, "broken", context))
    number = failed.value.template_id
    removed.append(number)
    with pytest.raises(errors.APIError):
        Sandbox.create("broken", **there)
    again = Template().from_python_image("3.11").run_cmd("true")
    assert (await Template.build(again, options(there, "broken", context))).template_id == number


async def test_a_name_that_is_taken(there: There, context: Path, removed: list[str]) -> None:
    recipe = Template().from_python_image("3.11").run_cmd("echo one > /home/user/which")
    built = await Template.build(recipe, options(there, "twice", context))
    removed.append(built.template_id)
    with pytest.raises(Exception, match="409"):
        await Template.build(recipe, options(there, "twice", context))
    changed = Template().from_python_image("3.11").run_cmd("echo two > /home/user/which")
    again = await Template.build(changed, options(there, "twice", context, update=True))
    assert again.template_id == built.template_id
    with Sandbox.create("twice", timeout_seconds=60, **there) as sandbox:
        assert sandbox.commands.run("cat ~/which").stdout == "two\n"


async def test_an_image_that_is_not_here(there: There, context: Path) -> None:
    with pytest.raises(Exception, match="is not available"):
        await Template.build(Template(from_image="nginx:1.27").run_cmd("true"), options(there, "n", context))


async def test_what_the_server_owns_cannot_be_deleted(there: There) -> None:
    number = Sandbox.get_template("base", **there).id
    with pytest.raises(errors.APIError, match="belongs to the server"):
        Sandbox.delete_template(number, **there)
