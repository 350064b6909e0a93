import marshal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType

import pytest

from cove.host.templates.interpreter import Interpreter, find_interpreter, probe
from cove.host.templates.layers import Workspace, digest_of
from cove.host.templates.packages_layer import PackagesLayer
from cove.host.templates.pip_install import explain
from cove.host.templates.recipes import PythonRecipe
from cove.models.errors import CoveError


def moved_interpreter() -> Interpreter:
    found = probe(str(Path(sys.base_prefix, "bin", "python3")), relocated=True)
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")


@pytest.mark.parametrize("interpreter", [find_interpreter(), moved_interpreter()], ids=["system", "moved"])
def test_packages_land_where_the_interpreter_inside_looks(
    workspace: Workspace, make_wheel: Callable[[str], Path], interpreter: Interpreter
) -> None:
    wheel = make_wheel("covedemo")
    recipe = PythonRecipe(requirements=(f"covedemo @ file://{wheel}",), prune=("covedemo/tests",))

    PackagesLayer(recipe, interpreter).build(workspace)

    assert workspace.packages == {"covedemo": "1.2"}
    packages = workspace.rootfs.locate(interpreter.inside(interpreter.purelib))
    assert (packages / "covedemo/__init__.py").is_file()
    assert not (packages / "covedemo/tests").exists()
    script = workspace.rootfs.locate(f"{interpreter.inside(interpreter.scripts)}/covedemo-run")
    assert script.read_text().splitlines()[0] == f"#!{interpreter.command}"
    assert script.stat().st_mode & 0o111
    assert {path.name for path in workspace.rootfs.root.iterdir()} == {"usr"}
    assert compiled_name(packages / "covedemo", interpreter) == (
        f"{interpreter.inside(interpreter.purelib)}/covedemo/__init__.py"
    )


def compiled_name(package: Path, interpreter: Interpreter) -> str:
    compiled = package / "__pycache__" / f"__init__.{interpreter.tag}.pyc"
    assert compiled.is_file()
    if interpreter.tag != sys.implementation.cache_tag:
        pytest.skip("byte code of another version cannot be read here")
    code = marshal.loads(compiled.read_bytes()[16:])
    assert isinstance(code, CodeType)
    return code.co_filename


def test_a_package_that_is_not_to_be_had_is_explained(workspace: Workspace) -> None:
    recipe = PythonRecipe(requirements=("cove-no-such-package-at-all>=1",))

    with pytest.raises(CoveError) as caught:
        PackagesLayer(recipe, find_interpreter()).build(workspace)
    assert caught.value.code == "TEMPLATE_BUILD_FAILED"
    assert "cove-no-such-package-at-all" in caught.value.message
    assert "pip config list" in caught.value.remedy


def test_an_index_that_does_not_answer_is_a_network_error(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_RETRIES", "1")
    with socket.socket() as closed:
        # Bound and not listening: connections are refused, and nobody else can take the port.
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        recipe = PythonRecipe(requirements=("covedemo>=1",))
        with pytest.raises(CoveError) as caught:
            PackagesLayer(recipe, find_interpreter()).build(workspace)

    assert caught.value.code == "NETWORK_ERROR"
    assert "index" in caught.value.message
    assert "pip config list" in caught.value.remedy


def test_placement_options_of_the_user_do_not_divert_packages(
    workspace: Workspace, make_wheel: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_USER", "1")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "1")
    recipe = PythonRecipe(requirements=(f"covedemo @ file://{make_wheel('covedemo')}",))

    PackagesLayer(recipe, find_interpreter()).build(workspace)

    assert workspace.packages == {"covedemo": "1.2"}
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("output", "code", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "DISK_FULL", "disk is full"),
        ("NewConnectionError: Failed to establish: [Errno -2] Name or service not known", "NETWORK_ERROR", "index"),
        ("ERROR: No matching distribution found for x", "TEMPLATE_BUILD_FAILED", "No matching distribution"),
    ],
)
def test_pips_failures_become_typed_errors(output: str, code: str, words: str) -> None:
    failure = explain(output)

    assert failure.code == code
    assert words in failure.message
    assert failure.remedy


def test_the_digest_depends_on_requirements_and_python(make_wheel: Callable[[str], Path]) -> None:
    one, two = PythonRecipe(requirements=("a>=1",)), PythonRecipe(requirements=("a>=2",))
    digests = {digest_of(PackagesLayer(r, i)) for r in (one, two) for i in (find_interpreter(), moved_interpreter())}

    assert len(digests) == 4
