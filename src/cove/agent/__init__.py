"""The program inside a sandbox: pid 1, answering the agent API over the sandbox's own socket."""
