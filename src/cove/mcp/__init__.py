"""The MCP server: sandboxes as tools for AI assistants (Model Context Protocol).

Every tool is a few lines over the async SDK and is called with the key of whoever asks, so that the control plane
decides what may be seen and done. Importing `mcp` takes a second; what must be quick does not import it.
"""
