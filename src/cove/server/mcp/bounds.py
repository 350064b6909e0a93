"""How much of anything `/mcp` takes."""

from typing import Final

MAX_BODY_BYTES: Final = 16 * 1024 * 1024
"""Of one request: code of 10 MB is refused by the tool, in words, and not here."""

MAX_BYTES_OF_CALLER: Final = 4 * MAX_BODY_BYTES
"""Of all requests of one caller that are being served."""

MAX_HELD_BYTES: Final = 16 * MAX_BODY_BYTES
"""Of those of everybody."""

MAX_ANSWER_BYTES: Final = 32 * 1024 * 1024
"""Of what a tool reads of a sandbox, which can lie. Honest agents send 16 MiB of displayed objects, and of output what
the tool asks for."""

IDLE_SECONDS: Final = 30 * 60.0
"""A session of an older revision ends when it was not used for so long."""

LOADING_SECONDS: Final = 20.0
"""How long a request waits for the library to be imported."""
