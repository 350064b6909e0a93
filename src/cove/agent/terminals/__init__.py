"""Interactive programs on pseudo-terminals of the sandbox."""
