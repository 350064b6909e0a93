"""What a sandbox is called, in the files where programs look: they see a machine of their own."""

import hashlib
import os
import uuid
from typing import Final

from cove.drivers.namespace.forkserver.birth import Birth
from cove.drivers.namespace.forkserver.protocol import DISK, ROOT
from cove.linux.mounts import bind

_BOOT_ID: Final = f"{DISK}/boot-id"
_KERNELS_BOOT_ID: Final = f"{ROOT}/proc/sys/kernel/random/boot_id"


def machine_id(sandbox_id: str) -> str:
    """See machine-id(5)."""
    return hashlib.blake2b(sandbox_id.encode(), digest_size=16, person=b"cove machine-id").hexdigest()


def write_identity(birth: Birth, upper: str) -> None:
    """Put the names onto a new disk, in place of the template's. A disk that was used keeps what it has: nothing
    there may be followed any more, and the names are the same."""
    directory = f"{upper}/etc"
    os.mkdir(directory, 0o755)
    hosts = f"127.0.0.1\tlocalhost {birth.hostname} sandbox\n::1\tlocalhost ip6-localhost ip6-loopback"
    _write(f"{directory}/hostname", birth.hostname)
    _write(f"{directory}/hosts", hosts)
    _write(f"{directory}/machine-id", machine_id(birth.boot.sandbox_id))


def cover_boot_id() -> None:
    """A new one for each start, as the kernel does (random(4)); the machine's would tell which sandboxes share it."""
    if os.path.exists(_BOOT_ID):
        os.unlink(_BOOT_ID)
    _write(_BOOT_ID, str(uuid.UUID(bytes=os.urandom(16), version=4)), mode=0o444)
    bind(_BOOT_ID, _KERNELS_BOOT_ID)


def _write(path: str, line: str, *, mode: int = 0o644) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.write(file, line.encode() + b"\n")
    finally:
        os.close(file)
