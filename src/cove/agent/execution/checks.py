"""What a request to run something must fulfil before anything is started."""

from pathlib import Path

from cove.models.errors import error
from cove.models.execution import LANGUAGE_ALIASES, MAX_CODE_BYTES, CommandRequest, Language


class Checks:
    """Knows the languages and the workspace of this sandbox."""

    def __init__(self, languages: tuple[str, ...], workspace: str) -> None:
        self.languages = frozenset(languages)
        self._workspace = workspace

    def language(self, name: str) -> Language:
        """The language of that name or alias.

        Raises:
            CoveError: UNSUPPORTED_LANGUAGE.
        """
        language = LANGUAGE_ALIASES.get(name.strip().lower())
        if language is None or language not in self.languages:
            known = ", ".join(sorted(self.languages))
            raise error(
                "UNSUPPORTED_LANGUAGE",
                f"language {name[:40]!r} cannot run in this sandbox",
                remedy=f"Languages here: {known}.",
            )
        return language

    def directory(self, workdir: str) -> str:
        """The absolute working directory; empty means the workspace.

        Raises:
            CoveError: INVALID_PATH when there is none.
        """
        require_text(workdir)
        path = Path(self._workspace, workdir)
        if not workdir:
            return self._workspace if path.is_dir() else "/"
        try:
            exists = path.is_dir()
        except OSError:  # too long a name
            exists = False
        if not exists:
            raise error(
                "INVALID_PATH",
                f"the working directory {workdir[:200]!r} does not exist",
                remedy="Create it first (POST /files/mkdir), or leave workdir empty.",
            )
        return str(path)


def require_code(code: str) -> None:
    """Raise INVALID_REQUEST or REQUEST_TOO_LARGE for a text that no interpreter takes."""
    require_text(code)
    if len(code.encode()) > MAX_CODE_BYTES:
        raise error("REQUEST_TOO_LARGE", f"the code is longer than {MAX_CODE_BYTES} bytes")


def arguments_of(request: CommandRequest) -> list[str]:
    """What to execute: the command with its arguments, or a shell that reads the command.

    Raises:
        CoveError: INVALID_REQUEST for text that execve(2) cannot pass on.
    """
    argv = ["bash", "-c", request.command] if request.args is None else [request.command, *request.args]
    for argument in argv:
        require_text(argument)
    return argv


def require_text(value: str) -> None:
    """Raise INVALID_REQUEST for text that cannot reach a program as it is."""
    if "\0" in value:
        raise error("INVALID_REQUEST", "the request contains a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise error("INVALID_REQUEST", "the request contains text that is not valid Unicode") from None
