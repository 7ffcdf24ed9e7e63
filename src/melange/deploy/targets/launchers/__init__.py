"""SkyPilot and dstack, which rent instances by themselves: one process an instance."""
