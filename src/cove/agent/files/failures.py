"""What the kernel says about files, in the words of the API."""

import errno
from collections.abc import Generator
from contextlib import contextmanager

from cove.agent.files.paths import shown
from cove.models.errors import CoveError, error
from cove.models.limits import Limits

_PATH_PROBLEMS: dict[int, str] = {
    errno.ENOTDIR: "A part of the path is not a directory",
    errno.EISDIR: "The path is a directory",
    errno.ELOOP: "The path has too many symbolic links",
    errno.ENAMETOOLONG: "The path or a part of it is too long",
    errno.EINVAL: "The path is not one that this operation can take",
    errno.ENXIO: "The path is not a regular file",
    errno.ENODEV: "The path is not a regular file",
    errno.EXDEV: "The path crosses file systems",
}


@contextmanager
def file_errors(path: str, limits: Limits, *, missing: str = "FILE_NOT_FOUND") -> Generator[None]:
    """Turn an `OSError` about `path` into a `CoveError`; `missing` is the code for what does not exist."""
    try:
        yield
    except OSError as failure:
        raise file_error(failure, path, limits, missing=missing) from None


def file_error(failure: OSError, path: str, limits: Limits, *, missing: str = "FILE_NOT_FOUND") -> CoveError:
    """The error for `failure` at `path`."""
    path = shown(path)
    number = failure.errno or 0
    if number == errno.ENOENT:
        kind = "directory" if missing == "DIRECTORY_NOT_FOUND" else "file or directory"
        return error(missing, f"No such {kind}: {path}", remedy="GET /files/list shows what there is.", path=path)
    if number in _PATH_PROBLEMS:
        return error("INVALID_PATH", f"{_PATH_PROBLEMS[number]}: {path}", remedy="Give another path.", path=path)
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return _forbidden(path)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return error(
            "DISK_FULL",
            f"The disk of the sandbox is full (limit {limits.disk_mb} MiB): {path}",
            remedy="Remove files, or create a sandbox with a larger disk.",
            path=path,
            limit_mb=limits.disk_mb,
        )
    return _other_error(failure, path, limits)


def _forbidden(path: str) -> CoveError:
    # Not PERMISSION_DENIED or PATH_NOT_ALLOWED: at those Hopx's asynchronous client breaks with a TypeError.
    return error(
        "FORBIDDEN",
        f"Permission denied: {path}",
        remedy="The user of the sandbox may write below its workspace, its home and /tmp.",
        path=path,
        reason="permission_denied",
    )


def _other_error(failure: OSError, path: str, limits: Limits) -> CoveError:
    number = failure.errno or 0
    if number == errno.EEXIST:
        return error("FILE_ALREADY_EXISTS", f"The path exists already: {path}", remedy="Remove it first.", path=path)
    if number == errno.EFBIG:
        return error("REQUEST_TOO_LARGE", f"The file would become too large: {path}", path=path)
    if number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return error(
            "RESOURCE_LIMIT_EXCEEDED",
            f"A limit of the sandbox was reached ({failure.strerror}; {limits.memory_mb} MiB memory): {path}",
            remedy="End programs in the sandbox, or create one with more memory.",
            path=path,
        )
    if number in (errno.EBUSY, errno.ETXTBSY, errno.ENOTEMPTY):
        return error("CONFLICT", f"In use ({failure.strerror}): {path}", remedy="Try again later.", path=path)
    return error("INTERNAL_ERROR", f"{failure.strerror or 'Input/output error'}: {path}", path=path)


def not_regular(path: str, kind: str) -> CoveError:
    """The error for a `kind` where a regular file is needed."""
    path = shown(path)
    return error("INVALID_PATH", f"A regular file is needed, this is {kind}: {path}", remedy="Give a file.", path=path)
