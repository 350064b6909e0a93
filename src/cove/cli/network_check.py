"""Whether sandboxes can have networks on this machine, by trying: for `cove doctor`."""

import asyncio
import os
import sys
from typing import Final

_SECONDS: Final = 20.0
_WAITS: Final = (
    "import sys; from cove.linux.clone import unshare; unshare(int(sys.argv[1])); print(flush=True); sys.stdin.read()"
)


async def network_problem() -> tuple[str, str] | None:
    """What is in the way of capturing a network namespace that is made for this, and what to type; None: nothing."""
    from cove.host.capturing import capture
    from cove.linux.clone import CLONE_NEWNET, CLONE_NEWUSER
    from cove.models.errors import CoveError

    kinds = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WAITS, str(kinds)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    try:
        async with asyncio.timeout(_SECONDS):
            if not await child.stdout.readline():
                words = (await child.stderr.read()).decode(errors="replace").strip().rpartition("\n")[2]
                return f"no network namespace can be made: {words[:200]}", ""
            pidfd = os.pidfd_open(child.pid)
            try:
                for sock in await capture(pidfd):
                    sock.close()
            finally:
                os.close(pidfd)
    except CoveError as problem:
        return problem.message, "modprobe nft_tproxy" if problem.code == "UNSUPPORTED" else problem.remedy
    except (OSError, TimeoutError) as problem:
        return f"could not be tried: {problem or 'it took too long'}", ""
    finally:
        child.stdin.close()
        await child.wait()
    return None
