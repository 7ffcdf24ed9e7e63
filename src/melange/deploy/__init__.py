"""The files that put a plan into production."""
