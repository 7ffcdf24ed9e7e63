"""Stage 3: the cheapest mix that serves the workload."""
