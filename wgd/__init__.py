"""wgd: a WireGuard gateway and its client for systemd hosts."""

__version__ = "0.1.0"
