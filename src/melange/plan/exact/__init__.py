"""Bounds, cuts and lists of fleets: what proves a fleet cheapest without a solver."""
