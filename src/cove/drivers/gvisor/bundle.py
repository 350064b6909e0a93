"""The directory of one sandbox, and the OCI bundle in it (https://github.com/opencontainers/runtime-spec)."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cove.drivers.guests import guest_environment
from cove.drivers.gvisor.guest import privileges, protocol
from cove.host.identities import id_map
from cove.models.templates import TemplateManifest

CONTAINER: Final = "sandbox"
"""Its id towards runsc; each sandbox has a state directory of its own."""

_SHARED_MEMORY_MIB: Final = 64
_OPEN_FILES: Final = 1048576
_NAMESPACES: Final = ("pid", "ipc", "uts", "mount", "user")
_NETWORK: Final = {"type": "network", "path": "/proc/self/ns/net"}
"""That of `runsc`, which the launcher has made ready."""


@dataclass(frozen=True)
class Box:
    """Where a sandbox's parts are on the host; none of it holds anything that a user wrote."""

    directory: Path

    @property
    def stage(self) -> Path:
        """Its disk is mounted here, in its own mount namespace only."""
        return self.directory / "disk"

    @property
    def root(self) -> Path:
        """Its root filesystem is mounted here, in the same."""
        return self.directory / "root"

    @property
    def share(self) -> Path:
        """The one directory of the host that it can write to, until its birth."""
        return self.directory / "share"

    @property
    def state(self) -> Path:
        """For runsc."""
        return self.directory / "state"

    @property
    def pid_file(self) -> Path:
        """Takes the process id of its kernel."""
        return self.directory / "pid"

    @property
    def socket(self) -> Path:
        """Where its agent's socket appears."""
        return self.share / Path(protocol.SOCKET).name

    def make(self, user: int) -> None:
        """Make the directories; `user` (host id) may write into the shared one."""
        self.directory.mkdir(mode=0o711, parents=True)
        for path in (self.stage, self.root, self.share, self.state):
            path.mkdir(mode=0o700)
        os.chown(self.share, user, user)

    def close_share(self) -> None:
        """From now on nothing can be put into the shared directory, by nobody but root."""
        os.chown(self.share, os.geteuid(), os.getegid())
        self.share.chmod(0o500)

    def remove(self) -> None:
        """Idempotent. Its mounts are in a namespace of the sandbox's own: here all is empty."""
        shutil.rmtree(self.directory, ignore_errors=True)


def write_bundle(box: Box, template: TemplateManifest, slot: int, program: tuple[str, ...] = ()) -> None:
    """Write config.json: the first program is the guest's, or `program`, as a root that can do almost nothing."""
    maps = [
        {"containerID": int(inside), "hostID": int(outside), "size": int(size)}
        for inside, outside, size in (line.split() for line in id_map(slot).splitlines())
    ]
    user = "0" if template.run_as_root else str(protocol.USER_ID)
    guest = (template.python, "-m", "cove.drivers.gvisor.guest", user, *template.preload)
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": program or guest,
            "env": [f"{name}={value}" for name, value in guest_environment(template).items()],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": dict.fromkeys(
                ("bounding", "effective", "permitted"), privileges.names(run_as_root=template.run_as_root)
            ),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": _OPEN_FILES, "soft": _OPEN_FILES}],
        },
        "root": {"path": str(box.root), "readonly": False},
        "hostname": "sandbox",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {
                "destination": "/dev/shm",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["mode=1777", f"size={_SHARED_MEMORY_MIB}m"],
            },
            {"destination": protocol.SOCKET_DIRECTORY, "type": "bind", "source": str(box.share), "options": ["rw"]},
        ],
        "linux": {
            "namespaces": [*({"type": name} for name in _NAMESPACES), _NETWORK],
            "uidMappings": maps,
            "gidMappings": maps,
        },
    }
    (box.directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
