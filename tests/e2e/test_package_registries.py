"""pip and npm in a sandbox that may reach nothing but package registries: ones that the test has made."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.e2e.running_server import RunningServer, data_directory, running_server
from tests.internet import Internet
from tests.internet_servers import FILES, NAMESERVER

_SECONDS = 120.0
_RULES = ("packages.example", "files.packages.example", "registry.example")
_AUTHORITY = "/tmp/authority.pem"
_PIP, _NPM = "https://{}/files/simple/", "https://{}/files/npm/"

Shell = Callable[[str], str]


def _wheel() -> bytes:
    """`greeting`, a distribution of one module (the binary distribution format of packaging.python.org)."""
    about = "greeting-1.0.dist-info"
    files = {
        "greeting.py": "TEXT = 'hello from a wheel'\n",
        f"{about}/METADATA": "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{about}/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return packed.getvalue()


def _tarball() -> bytes:
    """The same for Node.js."""
    files = {
        "package/package.json": json.dumps({"name": "greeting", "version": "1.0.0", "main": "index.js"}),
        "package/index.js": "module.exports = 'hello from a tarball';\n",
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def _offer(directory: Path) -> None:
    """Lay packages out as registries have them: a simple index (PEP 503) whose files are on another host, and
    documents of packages as npm reads them.
    """
    (directory / "simple/greeting").mkdir(parents=True)
    (directory / "npm").mkdir()
    wheel, tarball = _wheel(), _tarball()
    name = "greeting-1.0-py3-none-any.whl"
    (directory / name).write_bytes(wheel)
    (directory / "greeting-1.0.0.tgz").write_bytes(tarball)
    link = f"https://files.packages.example/files/{name}#sha256={hashlib.sha256(wheel).hexdigest()}"
    (directory / "simple/greeting/index.html").write_text(f'<!DOCTYPE html><a href="{link}">{name}</a>')
    dist = {
        "tarball": "https://registry.example/files/greeting-1.0.0.tgz",
        "integrity": f"sha512-{base64.b64encode(hashlib.sha512(tarball).digest()).decode()}",
    }
    version = {"name": "greeting", "version": "1.0.0", "dist": dist}
    about = {"name": "greeting", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    (directory / "npm/greeting").write_text(json.dumps(about))


@pytest.fixture(scope="module")
def server(internet: Internet, built_data_dir: Path) -> Iterator[RunningServer]:
    _offer(internet.certificate.certificate.parent / FILES)
    variables = {
        "COVE_NAMESERVERS": json.dumps([NAMESERVER]),
        "COVE_PACKAGE_REGISTRIES": json.dumps(_RULES),
        "COVE_NETWORK": "package-registries",
    }
    with (
        internet.on_machine(),
        data_directory(built_data_dir) as data_dir,
        running_server(data_dir, "--dev", **variables) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=_SECONDS) as http:
        yield http


@pytest.fixture(scope="module")
def sandbox(http: httpx2.Client, internet: Internet) -> Iterator[dict[str, Any]]:
    variables = {
        "PIP_INDEX_URL": _PIP.format("packages.example"),
        "PIP_CERT": _AUTHORITY,
        "PIP_RETRIES": "0",
        "NPM_CONFIG_REGISTRY": _NPM.format("registry.example"),
        "NPM_CONFIG_FETCH_RETRIES": "0",
        "NODE_EXTRA_CA_CERTS": _AUTHORITY,
    }
    made = http.post("/v1/sandboxes", json={"template_name": "code-interpreter", "env_vars": variables})
    assert made.status_code == 201, made.text
    yield made.json()
    http.delete(f"/v1/sandboxes/{made.json()['id']}")


@pytest.fixture(scope="module")
def sh(http: httpx2.Client, sandbox: dict[str, Any], internet: Internet) -> Shell:
    """Runs a shell program in the sandbox, and gives what it prints, errors included."""
    headers = {"Authorization": f"Bearer {sandbox['auth_token']}"}

    def run(code: str) -> str:
        body = {"code": code, "language": "bash", "timeout": 90}
        answer = http.post(f"/sandboxes/{sandbox['id']}/execute", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return f"{answer.json()['stdout']}{answer.json()['stderr']}"

    run(f"cat > {_AUTHORITY} <<'END'\n{internet.certificate.authority.read_text()}END")
    return run


def _reached(http: httpx2.Client, sandbox: dict[str, Any]) -> dict[str, bool]:
    """Names of hosts in the report, and whether they were reached."""
    entries = http.get(f"/v1/sandboxes/{sandbox['id']}/network").json()["entries"]
    return {entry["name"]: entry["allowed"] for entry in entries}


def test_pip_installs_from_the_index_and_nowhere_else(sh: Shell, http: httpx2.Client, sandbox: dict[str, Any]) -> None:
    assert sandbox["network"]["allow"] == list(_RULES)
    refused = sh(f"pip install -i {_PIP.format('other.example')} greeting; python3 -c 'import greeting'")
    assert "Successfully installed" not in refused
    assert "No module named 'greeting'" in refused
    assert _reached(http, sandbox) == {"other.example": False}

    said = sh("pip install greeting && python3 -c 'import greeting; print(greeting.TEXT)'")
    assert "Successfully installed greeting-1.0" in said
    assert "hello from a wheel" in said
    assert _reached(http, sandbox) == {
        "other.example": False,
        "packages.example": True,
        "files.packages.example": True,
    }


def test_npm_installs_from_the_registry_and_nowhere_else(
    sh: Shell, http: httpx2.Client, sandbox: dict[str, Any]
) -> None:
    require = "node -e 'console.log(require(\"greeting\"))'"
    refused = sh(
        f"mkdir elsewhere && cd elsewhere && npm i --registry {_NPM.format('other.example')} greeting; {require}"
    )
    assert "ENOTFOUND" in refused
    assert "Cannot find module 'greeting'" in refused
    assert _reached(http, sandbox)["other.example"] is False

    said = sh(f"mkdir here && cd here && npm install greeting && {require}")
    assert "added 1 package" in said
    assert "hello from a tarball" in said
    assert _reached(http, sandbox)["registry.example"] is True
