import base64
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cove.host.templates.layers import Workspace
from cove.host.templates.recipes import HostRecipe, load_host_recipe
from cove.host.templates.rootfs import Rootfs

MakeWheel = Callable[[str], Path]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    for name in ("root", "scratch"):
        (tmp_path / name).mkdir(mode=0o755)
    return Workspace(Rootfs(tmp_path / "root"), tmp_path / "scratch", (), lambda _step, _fraction: None)


@pytest.fixture
def small_host() -> HostRecipe:
    """The shipped recipe with few commands and little data."""
    return load_host_recipe().model_copy(
        update={
            "required": ("bash", "sh", "cat", "ls"),
            "optional": ("awk", "env", "gunzip", "no-such-command"),
            "trees": ("/usr/share/zoneinfo/Etc",),
        }
    )


@pytest.fixture
def make_wheel(tmp_path: Path) -> MakeWheel:
    """Makes a pure Python wheel, without any build tool or index."""

    def make(name: str) -> Path:
        module = f"def main():\n    print('hello from {name}')\n\n\ndef fail():\n    raise ValueError\n"
        info = f"{name}-1.2.dist-info"
        contents = {
            f"{name}/__init__.py": module,
            f"{name}/tests/test_it.py": "x = 1\n",
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name}-run = {name}:main\n",
        }
        record = [f"{path},{_digest(text)},{len(text)}" for path, text in contents.items()]
        contents[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""])
        wheel = tmp_path / f"{name}-1.2-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, text in contents.items():
                archive.writestr(path, text)
        return wheel

    return make


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return "sha256=" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
