"""What calls return, with what a caller usually does with it."""

import base64
import binascii
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from cove.models.base import Contract
from cove.models.errors import error
from cove.models.execution import CommandResult, ExecutionResult
from cove.models.files import FileWritten
from cove.models.processes import BackgroundProcess
from cove.models.sandboxes import SandboxInfo


class Execution(ExecutionResult):
    """An `ExecutionResult` with access to its figures."""

    @property
    def png_images(self) -> tuple[bytes, ...]:
        """Every PNG that was displayed, decoded, in order.

        Raises:
            PlatformFailure: the sandbox sent something that is not base64.
        """
        shown = [output.data.get("image/png") for output in self.rich_outputs]
        encoded = [image for image in shown if isinstance(image, str)]
        if not encoded and self.png is not None:
            encoded = [self.png]
        return tuple(_decoded(image) for image in encoded)

    def save_png(self, path: str | os.PathLike[str]) -> Path:
        """Write the last figure to the local file `path`, which is replaced.

        Raises:
            NotFound: no figure was displayed.
            OSError: the file cannot be written.
        """
        if self.png is None:
            raise error("RESOURCE_NOT_FOUND", "The code displayed no figure.", remedy="Call plt.show() in the code.")
        target = Path(path)
        target.write_bytes(_decoded(self.png))
        return target


class ProcessInfo(BackgroundProcess):
    """A background program as the agent describes it; `result` is there once it has ended."""

    result: Execution | None = None  # pyright: ignore[reportIncompatibleVariableOverride] - it is frozen

    def outcome(self) -> Execution:
        """The result of a program that has ended; made of the other fields where the agent keeps none."""
        if self.result is not None:
            return self.result
        code = 1 if self.exit_code is None else self.exit_code
        return Execution(
            stdout=self.stdout,
            stderr=self.stderr,
            exit_code=code,
            success=code == 0,
            execution_time=self.execution_time or self.duration,
            language=self.language,
            execution_id=self.execution_id,
            timed_out=self.timed_out,
        )


class ProcessInfos(Contract):
    """Answer to `GET /execute/processes`, newest first."""

    processes: tuple[ProcessInfo, ...] = ()


class AcceptedExecution(Contract):
    """An asynchronous execution that the server has taken over; its result is sent to `callback_url`."""

    execution_id: str
    status: str = "queued"
    callback_url: str = ""
    message: str = ""
    timestamp: str = ""


class Skipped(Contract):
    """Something that a transfer of a directory left out."""

    path: str
    reason: str


class DirectoryTransfer(FileWritten):
    """What a transfer of a directory did; `path` is its destination.

    Attributes:
        size: bytes of the files' contents.
        entries: files, directories and links.
        skipped: FIFOs, sockets, devices, and links that lead outside.
    """

    entries: int = 0
    skipped: tuple[Skipped, ...] = ()


class ExpiryInfo(Contract):
    """How long a sandbox has to live.

    Attributes:
        time_to_expiry: seconds, negative once it is over; None without a deadline.
    """

    expires_at: datetime | None = None
    time_to_expiry: int | None = None
    is_expired: bool = False
    is_expiring_soon: bool = False
    has_timeout: bool = False

    @classmethod
    def of(cls, info: SandboxInfo, *, threshold_seconds: float) -> Self:
        """From what the server says, by this machine's clock."""
        moment = info.expires_at
        if moment is None:
            return cls()
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        left = int((moment - datetime.now(UTC)).total_seconds())
        return cls(
            expires_at=moment,
            time_to_expiry=left,
            is_expired=left <= 0,
            is_expiring_soon=left <= threshold_seconds,
            has_timeout=True,
        )


def command_result(command: str, result: Execution) -> CommandResult:
    """A command that ran as a program of Bash, which is the same thing."""
    shared: dict[str, Any] = {name: getattr(result, name, 0) for name in CommandResult.model_fields}
    return CommandResult(**shared | {"command": command})


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError):
        raise error("INTERNAL_ERROR", "The sandbox sent an image that is not base64.") from None
