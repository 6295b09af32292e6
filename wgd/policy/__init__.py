"""Model to what the kernel must hold, and the same question answered in Python."""
