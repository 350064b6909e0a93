"""The Python interpreter of a sandbox: what runs in the kernel process, next to the user's program."""
