"""The paths of the agent API, one file a subject. Each file offers `ROUTES`."""
