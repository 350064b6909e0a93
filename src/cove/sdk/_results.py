"""What a run of code returned, with what a caller usually does with it."""

import base64
import binascii
import os
from pathlib import Path
from typing import Any

from cove.models.errors import error
from cove.models.execution import CommandResult, ExecutionResult


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


def command_result(command: str, result: Execution) -> CommandResult:
    """A command that ran as a program of Bash, which is the same thing."""
    shared: dict[str, Any] = {name: getattr(result, name, 0) for name in CommandResult.model_fields}
    shared["command"] = command
    return CommandResult(**shared)


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode("".join(image.split()), validate=True)
    except (binascii.Error, ValueError):
        raise error("INTERNAL_ERROR", "The sandbox sent an image that is not base64.") from None
