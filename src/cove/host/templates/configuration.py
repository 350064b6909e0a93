"""The synthesised /etc and the empty directories of a root filesystem. Nothing of the host's own /etc is copied but
the distribution's name and the certificates that it trusts."""

from collections.abc import Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import pip._vendor.certifi as certifi

from cove.host.templates.rootfs import MERGED, Rootfs

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
RELEASES = ("/etc/os-release", "/usr/lib/os-release")

PRIVATE_DIRECTORIES = ("/root",)
EMPTY_DIRECTORIES = (
    *("/proc", "/sys", "/dev", "/run", "/mnt", "/media", "/opt", "/srv", "/home"),
    *("/var", "/var/cache", "/var/lib", "/var/log", "/usr/local/bin", "/usr/local/lib", "/usr/lib/cove"),
)
STICKY_DIRECTORIES = ("/tmp", "/var/tmp")
# A sandbox has one user. Layers belong to root inside, so what that user owns in spirit is writable by all.
USER_DIRECTORIES = (
    *("/workspace", "/home/user", "/home/user/.local", "/home/user/.local/bin", "/home/user/.local/lib"),
    *("/home/user/.cache", "/home/user/.config"),
)


def static_files() -> dict[str, str]:
    """Path below /etc -> content, of the files that are the same everywhere."""
    return dict(_read(files("cove.host.templates") / "etc", ""))


def certificate_bundle() -> Path:
    """The certificates that this host trusts, or else those that pip brings."""
    host = Path(BUNDLE)
    return host if host.is_file() else Path(certifi.where())


def write_directories(rootfs: Rootfs) -> None:
    """Make the skeleton: merged /usr, empty mount points, and what the sandbox's user may write to."""
    for name in MERGED:
        if name in {"bin", "sbin", "lib", "lib64"} or rootfs.locate(f"/usr/{name}").is_dir():
            rootfs.directory(f"/usr/{name}")
            rootfs.link(f"/{name}", f"/usr/{name}")
    for path in EMPTY_DIRECTORIES:
        rootfs.directory(path)
    for path in PRIVATE_DIRECTORIES:
        rootfs.directory(path, mode=0o700)
    for path in STICKY_DIRECTORIES:
        rootfs.directory(path, mode=0o1777)
    for path in USER_DIRECTORIES:
        rootfs.directory(path, mode=0o777)
    rootfs.link("/var/run", "/run")


def write_etc(rootfs: Rootfs, *, libraries: Sequence[str], cafile: str) -> None:
    """Write /etc.

    Args:
        libraries: directories for the dynamic loader's configuration.
        cafile: where the interpreter's OpenSSL looks for certificates.
    """
    for name, content in static_files().items():
        rootfs.text(f"/etc/{name}", content)
    rootfs.text("/etc/os-release", _os_release())
    rootfs.text("/etc/machine-id", "")
    rootfs.text("/etc/ld.so.conf", "".join(f"{place}\n" for place in ("/usr/local/lib", *libraries)))
    rootfs.link("/etc/mtab", "/proc/self/mounts")
    rootfs.link("/etc/localtime", "/usr/share/zoneinfo/Etc/UTC")
    rootfs.text("/etc/timezone", "Etc/UTC\n")
    rootfs.text(BUNDLE, certificate_bundle().read_text(encoding="utf-8", errors="replace"))
    for place in (cafile, "/usr/lib/ssl/cert.pem", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt"):
        if place.startswith(("/usr/", "/etc/")):
            rootfs.link(place, BUNDLE)
    rootfs.link("/usr/lib/ssl/certs", "/etc/ssl/certs")
    rootfs.link("/usr/lib/ssl/openssl.cnf", "/etc/ssl/openssl.cnf")


def _os_release() -> str:
    for path in map(Path, RELEASES):
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return "ID=linux\nNAME=Linux\n"


def _read(directory: Traversable, prefix: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for entry in directory.iterdir():
        if entry.is_dir():
            found.extend(_read(entry, f"{prefix}{entry.name}/"))
        else:
            found.append((prefix + entry.name, entry.read_text(encoding="utf-8")))
    return sorted(found)
