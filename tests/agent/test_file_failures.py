"""Every errno that a file system hands out becomes a typed error."""

import errno
import os

import pytest

from cove.agent.files.failures import file_error
from cove.models.errors import definition_of
from cove.models.limits import Limits


@pytest.mark.parametrize(
    ("number", "code", "status"),
    [
        (errno.ENOENT, "FILE_NOT_FOUND", 404),
        (errno.EACCES, "FORBIDDEN", 403),
        (errno.EROFS, "FORBIDDEN", 403),
        (errno.ENOSPC, "DISK_FULL", 507),
        (errno.EDQUOT, "DISK_FULL", 507),
        (errno.ENOTDIR, "INVALID_PATH", 400),
        (errno.EISDIR, "INVALID_PATH", 400),
        (errno.ELOOP, "INVALID_PATH", 400),
        (errno.ENAMETOOLONG, "INVALID_PATH", 400),
        (errno.EEXIST, "FILE_ALREADY_EXISTS", 409),
        (errno.EBUSY, "CONFLICT", 409),
        (errno.EMFILE, "RESOURCE_LIMIT_EXCEEDED", 403),
        (errno.EFBIG, "REQUEST_TOO_LARGE", 413),
        (errno.EIO, "INTERNAL_ERROR", 500),
    ],
)
def test_errors_of_the_kernel(number: int, code: str, status: int) -> None:
    failure = file_error(OSError(number, os.strerror(number)), "/a", Limits())
    assert failure.code == code
    assert definition_of(failure.code).status == status
    assert failure.details["path"] == "/a"
    assert "/a" in failure.message


def test_a_full_disk_names_its_limit() -> None:
    failure = file_error(OSError(errno.ENOSPC, "x"), "/a", Limits(disk_mb=512))
    assert "512 MiB" in failure.message
    assert failure.remedy
