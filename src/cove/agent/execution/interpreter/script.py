"""What Python does around a script, beyond running its statements (Py_FinalizeEx in the C API)."""

import atexit
import threading


def begin_script() -> None:
    """Forget what the warm process registered to run at its own exit."""
    atexit._clear()  # pyright: ignore[reportPrivateUsage]


def end_script() -> None:
    """Wait for the threads that are not daemons, then run what the script registered to run at exit."""
    # The one place that knows what executors and other libraries want done before their threads are joined.
    threading._shutdown()  # type: ignore[attr-defined]  # pyright: ignore
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
