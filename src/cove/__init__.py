"""Cove: self-hosted code-execution sandboxes for AI agents."""

__version__ = "0.1.0"
