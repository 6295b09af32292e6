"""Bytes from the kernel to JSON lines."""
