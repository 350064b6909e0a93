"""What schemathesis sends, tamed: loaded by its command line (`SCHEMATHESIS_HOOKS`) in a process of its own.

Programs end at once, nothing is sent to anywhere but this machine, and where a document's example names a thing, a
real one takes its place: `OPENAPI_REAL_THINGS` is a JSON object of examples and of what they stand for. The ids of
operations that succeeded are written to the file `OPENAPI_SUCCESSES`.
"""

import json
import os
from pathlib import Path
from typing import Any, Final, cast

import schemathesis

_REAL: Final[dict[str, str]] = json.loads(os.environ.get("OPENAPI_REAL_THINGS", "{}"))
_LOG: Final = os.environ.get("OPENAPI_SUCCESSES", "")
_TAMED: Final = {
    "code": "print(1)",
    "command": "true",
    "language": "python",
    "callback_url": "http://127.0.0.1:9/",
    "from_image": "no-such-image",
}
_MINUTES_10: Final = 600
_REVOKING: Final = {"revoke_key": "3f9c2a7be01d", "remove_member": "7d20c4a1be93"}
"""The example that each may revoke. They take names too, and name and number of the very key that all of this is sent
with occur in other answers.
"""


def before_call(context: Any, case: Any, arguments: Any) -> None:
    """Change a request of any phase before it is sent."""
    operation_id = case.operation.definition.raw["operationId"]
    case.body = _tamed(case.body)
    case.query = _with_real_things(case.query)
    found = _with_real_things(case.path_parameters)
    if operation_id == "delete_sandbox" and found["sandbox_id"] in _REAL.values():
        # Ids are also taken from the answers to other requests: the rest would find nothing to work on.
        found = case.path_parameters | {"sandbox_id": "1763382095i648uu1o"}
    if operation_id in _REVOKING and _REAL.get(_REVOKING[operation_id]) not in found.values():
        found = {name: f"no-{value}" for name, value in found.items()}
    case.path_parameters = found


def after_call(context: Any, case: Any, response: Any) -> None:
    """Note which operations succeeded."""
    operation = case.operation
    if _LOG and case.method.upper() == operation.method.upper() and 200 <= response.status_code < 300:
        with Path(_LOG).open("a", encoding="utf-8") as log:
            log.write(f"{operation.definition.raw['operationId']}\n")


def _tamed(body: Any) -> Any:
    """Only what is text, and not empty, is replaced: the rest is for the server to refuse."""
    if not isinstance(body, dict):
        return body
    fields = cast("dict[str, Any]", body)
    given = {name: value for name, value in fields.items() if value and _is_text(value)}
    tamed: dict[str, Any] = {name: text for name, text in _TAMED.items() if name in given}
    tamed |= {name: _REAL[value] for name, value in given.items() if value in _REAL}
    if isinstance(fields.get("timeout_seconds"), int) and fields["timeout_seconds"] in range(1, _MINUTES_10):
        tamed["timeout_seconds"] = _MINUTES_10
    return fields | tamed


def as_it_is(context: Any, value: Any) -> Any:
    """Bytes that were generated, which are no archives."""
    return {"data": value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _with_real_things(parameters: Any) -> Any:
    if not isinstance(parameters, dict):
        return parameters
    fields = cast("dict[str, Any]", parameters)
    return {name: _REAL.get(value, value) if _is_text(value) else value for name, value in fields.items()}


_library: Any = schemathesis
_library.hook(before_call)
_library.hook(after_call)
_library.serializer("application/x-tar", "application/gzip")(as_it_is)
