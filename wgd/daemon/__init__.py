"""The processes: one loop, the gateway, the client, the recorder."""
