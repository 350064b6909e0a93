"""Every error a platform answer can carry, in one table.

A failing *program* is a result (exit code, stderr). A failing *platform* is a `CoveError`: a stable code, what
happened, and what to do about it. Hierarchy, as a caller may catch it:

    CoveError
    ├── InvalidRequest        bad input; nothing was touched (4xx)
    ├── AuthenticationFailed  no key, a wrong key, an expired token
    ├── PermissionRefused     a valid key that may not do this
    ├── NotFound              no such sandbox, template, file, process
    ├── Conflict              the thing is in a state that forbids this
    ├── LimitExceeded         a quota, a size, a rate
    ├── Unsupported           this driver or host cannot do it
    └── PlatformFailure       our fault, or the host's: disk full, driver failed (5xx)
"""

from dataclasses import dataclass
from typing import Any


class CoveError(Exception):
    """A platform error.

    Attributes:
        code: stable upper-case identifier, a key of `ERRORS`.
        message: what happened, for a person.
        remedy: what to do next, for a person; may be empty.
        details: JSON-compatible facts, never None.
    """

    def __init__(self, code: str, message: str, *, remedy: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy or definition_of(code).remedy
        self.details: dict[str, Any] = details or {}

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.code, self.message, self.remedy, self.details))


class InvalidRequest(CoveError):
    """The request itself is wrong; nothing was touched."""


class AuthenticationFailed(CoveError):
    """No credential, or one that is not valid (any more)."""


class PermissionRefused(CoveError):
    """A valid credential that may not do this."""


class NotFound(CoveError):
    """The named thing does not exist, or is not visible to this credential."""


class Conflict(CoveError):
    """The thing exists, but its state forbids the request."""


class LimitExceeded(CoveError):
    """A size, quota or rate limit would be exceeded."""


class Unsupported(CoveError):
    """This host or driver cannot do what was asked; nothing was touched."""


class PlatformFailure(CoveError):
    """Cove or its host failed."""


@dataclass(frozen=True)
class ErrorDefinition:
    """How one code appears on the wire and in Python.

    Attributes:
        status: HTTP status.
        exception: class raised for it.
        retryable: whether the same request may succeed later without any change.
        remedy: default advice.
    """

    status: int
    exception: type[CoveError]
    retryable: bool = False
    remedy: str = ""


ERRORS: dict[str, ErrorDefinition] = {
    # requests
    "INVALID_REQUEST": ErrorDefinition(400, InvalidRequest),
    "INVALID_JSON": ErrorDefinition(400, InvalidRequest, remedy="Send a JSON object as the body."),
    "MISSING_PARAMETER": ErrorDefinition(400, InvalidRequest),
    "INVALID_PATH": ErrorDefinition(400, InvalidRequest, remedy="Give an absolute path inside the sandbox."),
    "METHOD_NOT_ALLOWED": ErrorDefinition(405, InvalidRequest),
    "REQUEST_TOO_LARGE": ErrorDefinition(413, LimitExceeded),
    "HEADERS_TOO_LARGE": ErrorDefinition(431, LimitExceeded),
    # credentials
    "AUTHENTICATION_REQUIRED": ErrorDefinition(
        401, AuthenticationFailed, remedy="Send a key in X-API-Key; `cove keys create NAME` makes one."
    ),
    "UNAUTHORIZED": ErrorDefinition(
        401, AuthenticationFailed, remedy="Send the sandbox's token as `Authorization: Bearer`."
    ),
    "TOKEN_EXPIRED": ErrorDefinition(
        401, AuthenticationFailed, remedy="Get a new one: POST /v1/sandboxes/{id}/token/refresh."
    ),
    "FORBIDDEN": ErrorDefinition(403, PermissionRefused),
    # things
    "RESOURCE_NOT_FOUND": ErrorDefinition(404, NotFound),
    "SANDBOX_NOT_FOUND": ErrorDefinition(404, NotFound, remedy="`cove sandboxes list` shows what exists."),
    "TEMPLATE_NOT_FOUND": ErrorDefinition(404, NotFound, remedy="`cove templates list` shows what exists."),
    "FILE_NOT_FOUND": ErrorDefinition(404, NotFound),
    "DIRECTORY_NOT_FOUND": ErrorDefinition(404, NotFound),
    "PROCESS_NOT_FOUND": ErrorDefinition(404, NotFound),
    "EXECUTION_NOT_FOUND": ErrorDefinition(404, NotFound),
    "FILE_ALREADY_EXISTS": ErrorDefinition(409, Conflict),
    "PERMISSION_DENIED": ErrorDefinition(403, PermissionRefused),
    "PATH_NOT_ALLOWED": ErrorDefinition(403, PermissionRefused),
    "CONFLICT": ErrorDefinition(409, Conflict),
    "SANDBOX_EXPIRED": ErrorDefinition(410, Conflict, remedy="Create a new sandbox."),
    "SANDBOX_DIED": ErrorDefinition(
        410, Conflict, remedy="What was in it is gone. Create a new sandbox; if a limit ended it, with a higher one."
    ),
    "INVALID_STATE": ErrorDefinition(409, Conflict),
    # limits
    "RESOURCE_LIMIT_EXCEEDED": ErrorDefinition(403, LimitExceeded),
    "RATE_LIMIT_EXCEEDED": ErrorDefinition(429, LimitExceeded, retryable=True),
    # what this host can do
    "UNSUPPORTED": ErrorDefinition(400, Unsupported),
    "UNSUPPORTED_LANGUAGE": ErrorDefinition(400, Unsupported, remedy="Languages: python, javascript, bash, go."),
    "ISOLATION_UNAVAILABLE": ErrorDefinition(
        400, Unsupported, remedy="`cove doctor` shows what this machine can do and how to change it."
    ),
    "LIMIT_NOT_ENFORCEABLE": ErrorDefinition(
        400, Unsupported, remedy="`cove doctor` shows which limits this machine can enforce."
    ),
    "DESKTOP_NOT_AVAILABLE": ErrorDefinition(400, Unsupported),
    "TEMPLATE_NOT_BUILT": ErrorDefinition(409, Conflict, remedy="Run `cove templates build NAME`."),
    "NOT_IMPLEMENTED": ErrorDefinition(501, Unsupported),
    # failures of the platform
    "EXECUTION_FAILED": ErrorDefinition(500, PlatformFailure),
    "AGENT_UNREACHABLE": ErrorDefinition(502, PlatformFailure, retryable=True),
    # 502 is what every proxy answers here, and what browsers and load balancers expect. Asking again changes nothing.
    "BAD_RESPONSE": ErrorDefinition(502, Conflict, remedy="The program must answer with HTTP/1.1; its log says more."),
    "PORT_NOT_OPEN": ErrorDefinition(
        502, Conflict, remedy="Start a program in the sandbox that listens on this port of 127.0.0.1 or 0.0.0.0."
    ),
    "INTERNAL_ERROR": ErrorDefinition(500, PlatformFailure),
    "HOST_UNAVAILABLE": ErrorDefinition(503, PlatformFailure, retryable=True),
    "CAPACITY_EXHAUSTED": ErrorDefinition(503, PlatformFailure, retryable=True),
    "DISK_FULL": ErrorDefinition(507, PlatformFailure, remedy="Free space below the data directory."),
    "SANDBOX_START_FAILED": ErrorDefinition(
        500, PlatformFailure, remedy="`cove doctor` tests this machine and names what is missing."
    ),
    "TEMPLATE_BUILD_FAILED": ErrorDefinition(500, PlatformFailure),
    "NETWORK_ERROR": ErrorDefinition(503, PlatformFailure, retryable=True),
    "STORE_UNAVAILABLE": ErrorDefinition(503, PlatformFailure, retryable=True),
    "TIMEOUT": ErrorDefinition(504, PlatformFailure, retryable=True),
}


def definition_of(code: str) -> ErrorDefinition:
    """The table row of `code`; codes that this version does not know count as internal errors."""
    return ERRORS.get(code, ERRORS["INTERNAL_ERROR"])


def error(code: str, message: str, *, remedy: str = "", **details: Any) -> CoveError:
    """The exception for `code`, of the class that the table names."""
    return definition_of(code).exception(code, message, remedy=remedy, details=details)


def _rebuild(code: str, message: str, remedy: str, details: dict[str, Any]) -> CoveError:
    return definition_of(code).exception(code, message, remedy=remedy, details=details)
