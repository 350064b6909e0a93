"""Running a program inside a root filesystem that is being built, in namespaces of its own, without network.

unshare(1) gives user (unless root), mount, pid, network, ipc and uts namespaces; the layers are an overlay mount
that exists in them only, so nothing is left mounted whatever happens.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cove.host.templates.rootfs import remove_tree

NOBODY = 65534
PATH_INSIDE = "/usr/local/bin:/usr/bin"
OUTPUT_LIMIT = 4000
TIMED_OUT = 124
_NAMESPACES = ("--mount", "--propagation", "private", "--pid", "--net", "--ipc", "--uts")
_TOOLS = ("unshare", "mount", "chroot", "sh", "touch")

# $1 overlay options, $2 the merged root, $3 a file that tells a refusal by the host from a failure of the program;
# the rest is the command line that starts with chroot. No file may grow beyond 1 GiB.
_SCRIPT = """
set -eu
options=$1 root=$2 entered=$3
shift 3
ulimit -f 2097152
mount -t overlay overlay -o "$options" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t tmpfs -o nosuid,mode=755,size=64m tmpfs "$root/dev"
mkdir -m 1777 "$root/dev/shm"
for node in null zero full random urandom; do
  touch "$root/dev/$node"
  mount --bind "/dev/$node" "$root/dev/$node"
done
: > "$entered"
exec "$@"
"""


class ConfinementUnavailable(Exception):
    """This host gives no namespaces or no overlay mounts to this user."""


@dataclass(frozen=True)
class Finished:
    """A program that ended: its exit code (124: it took too long) and the end of what it printed."""

    exit_code: int
    output: str


class Confinement:
    """A merged, writable view of some layers. What programs write lands in `upper`."""

    def __init__(self, layers: Sequence[Path], scratch: Path) -> None:
        """
        Args:
            layers: the topmost first.
            scratch: an empty directory; it must not itself be on an overlay.
        """
        self._layers = tuple(layers)
        self._scratch = scratch
        self.upper = scratch / "upper"
        self._work = scratch / "work"
        self._root = scratch / "root"
        for path in (self.upper, self._work, self._root):
            path.mkdir(parents=True)
        self.upper.chmod(0o755)

    def writable(self, inside: str) -> Path:
        """Make a directory that programs inside may write to; returns its host path."""
        path = self.upper / inside.lstrip("/")
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        return path

    def run(self, command: Sequence[str], *, environment: Mapping[str, str], timeout: float) -> Finished:
        """Run `command` inside, as nobody when this process is root.

        Raises:
            ConfinementUnavailable: the namespaces or mounts were refused.
        """
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing:
            raise ConfinementUnavailable(f"{', '.join(missing)} not found")
        root = os.geteuid() == 0
        unshare = ["unshare", "--fork", "--kill-child", *_NAMESPACES]
        unshare += [] if root else ["--user", "--map-root-user"]
        enter = ["chroot", *((f"--userspec={NOBODY}:{NOBODY}",) if root else ()), str(self._root)]
        inner = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in environment.items()), *command]
        entered = self._scratch / "entered"
        script = ["sh", "-c", _SCRIPT, "sh", self._options(), str(self._root), str(entered)]
        finished = self._start([*unshare, *script, *enter, *inner], timeout)
        if not entered.exists():
            raise ConfinementUnavailable(finished.output or "unshare failed")
        return finished

    def close(self) -> None:
        """Remove what was written."""
        remove_tree(self._scratch)

    def _options(self) -> str:
        lower = ":".join(str(layer) for layer in self._layers)
        return f"lowerdir={lower},upperdir={self.upper},workdir={self._work}"

    def _start(self, command: Sequence[str], timeout: float) -> Finished:
        log = self._scratch / "output"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            try:
                code = process.wait(timeout=timeout)
            except subprocess.TimeoutExpired:
                code = TIMED_OUT
            finally:
                process.kill()
                process.wait()
        return Finished(code, _tail(log))


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(log.stat().st_size - OUTPUT_LIMIT, 0))
        return file.read(OUTPUT_LIMIT).decode(errors="replace").strip()
