"""The asynchronous client: the source. `cove.sdk._sync` is generated from it (tools/generate_sync_sdk.py)."""
