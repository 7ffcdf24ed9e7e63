"""Gateways that users already run: one file each, which splits every request size by the plan's shares."""
