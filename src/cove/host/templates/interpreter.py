"""The Python that a template runs: the distribution's own, or the one that runs Cove."""

import json
import re
import subprocess
import sys
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from cove.models.base import Contract
from cove.models.errors import CoveError, error

MINIMUM = (3, 11)
CANDIDATES = ("/usr/bin/python3", *(f"/usr/bin/python3.{minor}" for minor in range(19, 10, -1)))
PROBE_TIMEOUT = 20.0
PREFIX_INSIDE = "/usr/local"

_PROBE = """
import json, ssl, sys, sysconfig
paths = sysconfig.get_paths()
print(json.dumps({
    "version": list(sys.version_info[:3]), "tag": sys.implementation.cache_tag, "prefix": sys.base_prefix,
    "platform": sysconfig.get_platform(), "stdlib": paths["stdlib"], "purelib": paths["purelib"],
    "scripts": paths["scripts"], "cafile": ssl.get_default_verify_paths().openssl_cafile,
}))
"""


class Interpreter(Contract):
    """One Python on the host, and where it will be inside a template.

    Attributes:
        executable: the real file on the host.
        version: major, minor, micro.
        tag: cache tag, for example `cpython-311`.
        prefix: its prefix on the host.
        stdlib: directory of the standard library on the host.
        purelib: where pip puts packages on the host.
        scripts: where pip puts commands on the host.
        cafile: where its OpenSSL looks for certificates (compiled in, the same path inside).
        relocated: whether `prefix` becomes /usr/local inside; otherwise all paths stay as they are.
    """

    executable: str
    version: tuple[int, int, int]
    tag: str
    platform: str
    prefix: str
    stdlib: str
    purelib: str
    scripts: str
    cafile: str
    relocated: bool = False

    def inside(self, path: str) -> str:
        """Where the host path `path` below the prefix is inside a template."""
        if not self.relocated:
            return path
        return str(PurePosixPath(PREFIX_INSIDE) / PurePosixPath(path).relative_to(self.prefix))

    @property
    def command(self) -> str:
        """The path by which it is started inside."""
        return f"{PREFIX_INSIDE}/bin/python3" if self.relocated else "/usr/bin/python3"

    @property
    def identity(self) -> dict[str, str]:
        """What installed packages depend on: a patch release changes nothing for them."""
        return {
            "tag": self.tag, "platform": self.platform, "purelib": self.inside(self.purelib), "command": self.command,
        }  # fmt: skip


def find_interpreter(memory: Path | None = None) -> Interpreter:
    """The first of the distribution's interpreters that is new enough, else the one that runs this code.

    Args:
        memory: a file in which the answer is kept, for as long as the executable does not change.

    Raises:
        CoveError: TEMPLATE_BUILD_FAILED when there is none.
    """
    for candidate in CANDIDATES:
        if not Path(candidate).exists() or _named_version(candidate) < MINIMUM:
            continue
        interpreter = probe(candidate, memory=memory)
        if interpreter is not None and interpreter.version[:2] >= MINIMUM:
            return interpreter
    base = Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}")
    interpreter = probe(str(base), relocated=True, memory=memory) if base.exists() else None
    if interpreter is None:
        raise error(
            "TEMPLATE_BUILD_FAILED", "No Python 3.11 or newer was found in /usr/bin.",
            remedy="Run: apt-get install python3 (Debian 12, Ubuntu 24.04 or newer).",
        )  # fmt: skip
    return interpreter


def probe(executable: str, *, relocated: bool = False, memory: Path | None = None) -> Interpreter | None:
    """Ask an interpreter about itself; None when it does not answer."""
    real = Path(executable).resolve()
    status = real.stat()
    stamp = f"{real} {status.st_size} {status.st_mtime_ns} {relocated}"
    if memory is not None and (known := _recall(memory, stamp)) is not None:
        return known
    try:
        answer = subprocess.run(
            [real, "-I", "-c", _PROBE],
            env={"LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=PROBE_TIMEOUT,
            check=True,
        )
        found = Interpreter.model_validate(
            json.loads(answer.stdout) | {"executable": str(real), "relocated": relocated}
        )
    except (OSError, subprocess.SubprocessError, ValueError, ValidationError):
        return None
    if memory is not None and memory.parent.is_dir():
        memory.write_text(json.dumps({"stamp": stamp, "interpreter": found.model_dump()}), encoding="utf-8")
    return found


def _named_version(path: str) -> tuple[int, int]:
    match = re.search(r"python3\.(\d+)$", str(Path(path).resolve()))
    return (3, int(match[1])) if match else MINIMUM


def _recall(memory: Path, stamp: str) -> Interpreter | None:
    try:
        kept = json.loads(memory.read_bytes())
        return Interpreter.model_validate(kept["interpreter"]) if kept["stamp"] == stamp else None
    except (OSError, ValueError, KeyError, TypeError, CoveError, ValidationError):
        return None
