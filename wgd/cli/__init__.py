"""The commands; where doors and daemons are joined."""
