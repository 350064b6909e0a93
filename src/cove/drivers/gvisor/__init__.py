"""Sandboxes behind a kernel of their own in user space: gVisor's `runsc` (https://gvisor.dev/docs)."""
