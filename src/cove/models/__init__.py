"""The contract shared by server, agent, SDK, MCP and CLI: data, errors, identifiers.

This package imports nothing else of Cove, so that any program may speak the wire without the engine.
"""
