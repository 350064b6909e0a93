"""`cove keys`: API keys, straight in the store, so that it works whether or not the server runs."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True)
