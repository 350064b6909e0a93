"""The sandbox's user installs packages, without any network here, and finds them again after a stop and a start."""

import pytest
from tests.contract.driver_fixtures import Inside
from tests.drivers.namespace.conftest import Ground, Maker

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("ground", ["code-interpreter"], indirect=True)]

PYTHON = """
set -e
mkdir -p /workspace/greet-src/greet && cd /workspace/greet-src
cat > pyproject.toml <<'END'
[project]
name = "greet"
version = "1.0"
[project.scripts]
greet = "greet:main"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
END
echo 'def main(): print("greetings from", __file__)' > greet/__init__.py
python3 - <<'END'
from setuptools import build_meta
build_meta.build_sdist("/workspace")
build_meta.build_wheel("/workspace")
END
cd /workspace
pip install -q --no-index --no-build-isolation greet-1.0.tar.gz
python3 -m venv --without-pip environment
pip -q --python environment/bin/python install --no-index greet-1.0-py3-none-any.whl
"""
NODE = """
set -e
mkdir -p /workspace/hi-src/bin /workspace/project && cd /workspace/hi-src
echo '{"name": "hi", "version": "1.0.0", "bin": {"hi": "bin/hi.js"}, "main": "bin/hi.js"}' > package.json
printf '#!/usr/bin/env node\\nconsole.log("hi from", __filename)\\n' > bin/hi.js
npm pack --silent
cd /workspace/project
npm install --silent --offline ../hi-src/hi-1.0.0.tgz
npm install --silent --offline --global ../hi-src/hi-1.0.0.tgz
"""
USE = """
cd /workspace/project
greet; /workspace/environment/bin/greet; hi; node -e 'require("hi")'
"""


async def test_packages_are_installed_and_survive_a_stop(ground: Ground, make: Maker) -> None:
    record = await make()
    inside = Inside(record)
    machine = await inside.output("cat /etc/machine-id")
    for install in (PYTHON, NODE):
        result = await inside.run(install)
        assert result["exit_code"] == 0, result
    expected = [
        "greetings from /home/user/.local/lib/",
        "greetings from /workspace/environment/lib/",
        "hi from /home/user/.local/lib/node_modules/hi/bin/hi.js",
        "hi from /workspace/project/node_modules/hi/bin/hi.js",
    ]
    used = (await inside.output(USE)).splitlines()
    assert [line.startswith(start) for line, start in zip(used, expected, strict=True)] == [True] * 4
    stopped = await ground.driver.stop(record)
    again = Inside(await ground.driver.start(stopped, ground.subject.template, {}))
    assert (await again.output(USE)).splitlines() == used
    assert await again.output("cat /etc/machine-id") == machine
