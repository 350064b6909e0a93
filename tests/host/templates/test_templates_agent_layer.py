from pathlib import Path

from cove.host.templates.agent_layer import AgentLayer
from cove.host.templates.interpreter import find_interpreter
from cove.host.templates.layers import Workspace, digest_of


def make_package(directory: Path) -> Path:
    files = {
        "__init__.py": "", "models/errors.py": "x = 1\n", "agent/kernel.js": "// js\n", "agent/deep/a.py": "y = 1\n",
        "linux/__init__.py": "", "server/app.py": "secret = 1\n", "drivers/__init__.py": "",
        "drivers/namespace/__init__.py": "", "drivers/namespace/driver.py": "", "drivers/namespace/forkserver.py": "",
        "agent/__pycache__/old.pyc": "",
    }  # fmt: skip
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    return directory


def test_only_guest_code_gets_in(workspace: Workspace, tmp_path: Path) -> None:
    package = make_package(tmp_path / "cove")

    AgentLayer(find_interpreter(), package=package).build(workspace)

    inside = workspace.rootfs.locate("/usr/lib/cove/python/cove")
    sources = {str(path.relative_to(inside)) for path in inside.rglob("*") if path.suffix in {".py", ".js"}}
    assert sources == {
        "__init__.py", "models/errors.py", "agent/kernel.js", "agent/deep/a.py", "linux/__init__.py",
        "drivers/__init__.py", "drivers/namespace/__init__.py", "drivers/namespace/forkserver.py",
    }  # fmt: skip
    assert list((inside / "models/__pycache__").glob("errors.*.pyc"))


def test_the_digest_follows_guest_code_only(tmp_path: Path) -> None:
    package = make_package(tmp_path / "cove")
    interpreter = find_interpreter()
    before = digest_of(AgentLayer(interpreter, package=package))

    (package / "server/app.py").write_text("secret = 2\n")
    assert digest_of(AgentLayer(interpreter, package=package)) == before
    (package / "agent/kernel.js").write_text("// edited\n")
    assert digest_of(AgentLayer(interpreter, package=package)) != before
