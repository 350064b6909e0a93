"""The `cove` command. Modules here import what they need inside their commands, so that `cove --help` is quick."""
