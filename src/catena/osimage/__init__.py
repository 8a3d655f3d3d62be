"""Signed, atomic OS releases: build, sign, verify."""
