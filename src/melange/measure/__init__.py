"""Measure a running server: load tests, the highest rate of each size, and its profile."""
