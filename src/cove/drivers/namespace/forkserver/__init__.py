"""The warm process of a template: it has imported everything, and forks sandboxes.

This package runs on the template's own root filesystem and Python, not on the host's.
"""
