"""`/mcp`: the MCP server over streamable HTTP, and the OAuth resource server in front of it.

Nothing here imports the `mcp` library when it is imported: that takes a second, which a server that starts has better
things to do with (`loading.py`).
"""
