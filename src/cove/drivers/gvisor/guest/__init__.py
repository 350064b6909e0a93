"""The first program inside a gVisor sandbox; it becomes the agent.

This package runs on the template's root filesystem and Python, behind gVisor's kernel.
"""
