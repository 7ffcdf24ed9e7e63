"""Profiles and load-test results of other tools, read and written."""
