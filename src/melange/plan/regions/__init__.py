"""Regions: traffic by origin, fleets by region, and which requests go where."""
