"""The doors to the rest of the host: files, sysctls, names."""
