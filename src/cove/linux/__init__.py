"""Thin typed bindings of Linux calls that Python lacks. A leaf: imports nothing else of Cove.

The code here also runs inside sandboxes, on the template's Python.
"""
