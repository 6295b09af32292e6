"""YAML text to model values, every problem with file, line and key path."""
