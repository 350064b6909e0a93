"""The host's kernel mechanisms, one a file: cgroups, disks, id ranges, records, templates.

Used by drivers and the host daemon; nothing here knows of sandboxes' wires.
"""
