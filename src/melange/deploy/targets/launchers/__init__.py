"""SkyPilot and dstack, which rent instances themselves: one process per instance."""
