"""The HTTP API: what the command line does, as jobs with progress, limits and cancellation."""
