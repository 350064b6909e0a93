"""The version, where every part can read it without importing more."""

VERSION = "0.1.0"
