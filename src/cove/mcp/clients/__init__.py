"""How the assistants that start or reach Cove's MCP server are told about it: their files, entries and links.

`table` says what differs between clients; everything else follows from it.
"""
