"""The blocking client: generated from `cove.sdk._async` (tools/generate_sync_sdk.py), except `primitives`."""
