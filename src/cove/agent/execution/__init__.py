"""Running programs inside a sandbox."""
