"""The host daemon: the only privileged program, one a machine. It owns drivers, records and deadlines."""
