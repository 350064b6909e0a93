import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cove.host.templates.confinement import Confinement, ConfinementUnavailable
from cove.host.templates.host_layer import HostLayer
from cove.host.templates.interpreter import Interpreter, find_interpreter, probe
from cove.host.templates.layers import Workspace, digest_of
from cove.host.templates.recipes import HostRecipe
from cove.models.errors import CoveError

WORLD_WRITABLE = {
    *("tmp", "var/tmp", "workspace", "home/user", "home/user/.cache", "home/user/.config", "home/user/.local"),
    *("home/user/.local/bin", "home/user/.local/lib"),
}


def moved_interpreter() -> Interpreter:
    found = probe(str(Path(sys.base_prefix, "bin", "python3")), relocated=True)
    assert found is not None
    return found


def run_inside(workspace: Workspace, *command: str) -> str:
    confinement = Confinement((workspace.rootfs.root,), workspace.scratch / "confined")
    try:
        done = confinement.run(command, environment={"PATH": "/usr/local/bin:/usr/bin"}, timeout=30)
    except ConfinementUnavailable as reason:
        pytest.skip(f"no namespaces or overlay mounts here: {reason}")
    finally:
        confinement.close()
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("moved", [False, True], ids=["system-python", "moved-python"])
def test_a_small_host_layer_is_closed_and_works(workspace: Workspace, small_host: HostRecipe, moved: bool) -> None:
    interpreter = moved_interpreter() if moved else find_interpreter()
    HostLayer(small_host, interpreter).build(workspace)
    root = workspace.rootfs.root

    assert [note for note in workspace.notes if "no-such-command" in note]
    assert (root / "bin").readlink() == Path("usr/bin")
    assert (root / "root").stat().st_mode & 0o777 == 0o700
    assert (root / "etc/passwd").read_text().startswith("root:x:0:0:")
    assert "user:x:1000:1000:" in (root / "etc/passwd").read_text()
    assert (root / "etc/machine-id").read_text() == ""
    assert (root / "etc/hostname").read_text() == "sandbox\n"
    assert list((root / "opt").iterdir()) == list((root / "root").iterdir()) == []
    assert not list(root.rglob("EXTERNALLY-MANAGED"))
    assert not list(root.rglob("sitecustomize.py"))
    check_modes_and_links(root)

    printed = run_inside(
        workspace, "python3", "-c",
        "import sys, ssl, sqlite3, zlib, ctypes, json; print(sys.executable, json.__file__, json.__cached__)",
    )  # fmt: skip
    assert str(root) not in printed
    assert sys.base_prefix not in printed or sys.base_prefix in {"/usr", "/usr/local"}
    assert printed.split()[0] == ("/usr/local/bin/python3" if moved else "/usr/bin/python3")
    assert run_inside(workspace, "bash", "-c", "echo $((6 * 7)); awk 'BEGIN { print 1 }'") == "42\n1"


def check_modes_and_links(root: Path) -> None:
    writable: set[str] = set()
    for directory, names, files in os.walk(root):
        for path in (Path(directory, name) for name in (*names, *files)):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                assert not path.readlink().is_absolute(), path
                continue
            assert stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode), path
            assert not status.st_mode & 0o6000, path
            assert status.st_nlink == 1 or stat.S_ISDIR(status.st_mode), path
            if status.st_mode & 0o002:
                writable.add(str(path.relative_to(root)))
    expected = {name for name in writable if name.startswith("home/user/.local/lib/python3.")}
    assert writable - expected == WORLD_WRITABLE


def test_a_missing_required_command_says_how_to_get_it(workspace: Workspace, small_host: HostRecipe) -> None:
    recipe = small_host.model_copy(update={"required": ("bash", "no-such-command")})

    with pytest.raises(CoveError) as caught:
        HostLayer(recipe, find_interpreter()).build(workspace)
    assert caught.value.code == "TEMPLATE_BUILD_FAILED"
    assert "no-such-command" in caught.value.message
    assert "apt-get install" in caught.value.remedy


def test_the_digest_is_stable_and_follows_the_recipe(small_host: HostRecipe) -> None:
    interpreter = find_interpreter()
    first = digest_of(HostLayer(small_host, interpreter))

    assert first == digest_of(HostLayer(small_host, interpreter))
    other = small_host.model_copy(update={"optional": ("env",)})
    assert first != digest_of(HostLayer(other, interpreter))


def test_programs_inside_have_no_network_no_host_processes_and_no_root(
    workspace: Workspace, small_host: HostRecipe
) -> None:
    HostLayer(small_host, find_interpreter()).build(workspace)

    network = run_inside(workspace, "cat", "/proc/net/dev").splitlines()
    assert [line.split(":")[0].strip() for line in network[2:]] == ["lo"]
    processes = run_inside(workspace, "bash", "-c", "cd /proc; echo [0-9]*")
    assert processes == "1"
    mounts = subprocess.run(["cat", "/proc/self/mounts"], capture_output=True, text=True, check=True).stdout
    assert str(workspace.scratch) not in mounts
    if os.geteuid() == 0:
        assert run_inside(workspace, "bash", "-c", "echo $EUID") == "65534"
