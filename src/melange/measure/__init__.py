"""Measure what one replica of a running server can do: load tests, the highest rate of each size, its profile."""
