"""Melange: the cheapest mix of accelerators that serves a language model within its SLO."""
