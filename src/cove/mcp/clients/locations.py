"""Where the file of a client is, on this machine."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cove.mcp.clients.table import VARIABLE_DEFAULTS, Client
from cove.models.errors import error


@dataclass(frozen=True, slots=True)
class Location:
    """A file, and the directory that it may not lie outside of, also by links."""

    path: Path
    within: Path
    of_project: bool = False


def user_location(
    client: Client, *, platform: str = sys.platform, home: Path | None = None, variables: Mapping[str, str] = os.environ
) -> Location:
    """The file that holds for all of a user's work."""
    home = (home or Path.home()).absolute()
    pattern = client.user_files.get(platform, client.user_files["linux"])
    first, _, rest = pattern.partition("/")
    if not first.startswith("$"):
        return Location(home / rest, home)
    chosen = variables.get(first[1:])
    base = Path(chosen).absolute() if chosen else _below_home(VARIABLE_DEFAULTS[first[1:]], home)
    # A directory that the user names is the user's choice, wherever it is.
    return Location(base / rest, base if chosen else home)


def project_location(client: Client, project: Path) -> Location:
    """The file that holds for one project.

    Raises:
        CoveError: the client has no such file, or there is no such directory.
    """
    if client.project_file is None:
        raise error(
            "INVALID_REQUEST",
            f"{client.title} has no configuration of a project.",
            remedy="Leave out --project: the file of the user is changed then.",
        )
    if not project.is_dir():
        raise error("INVALID_REQUEST", f"{project} is not a directory.", remedy="Give the project's directory.")
    return Location(project.absolute() / client.project_file, project.absolute(), of_project=True)


def _below_home(pattern: str, home: Path) -> Path:
    return home / pattern.removeprefix("~").removeprefix("/")
