"""The doors to the kernel, one a subsystem."""
