"""microsandbox's words over Cove's: a sandbox of theirs is (namespace, name), which is what a name is here too.

The MCP tools and the JSON-RPC route are two doors to the same objects. What clients of the product do in their own way,
and nobody else, is handled here.
"""
