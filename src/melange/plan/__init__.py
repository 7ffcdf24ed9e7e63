"""Stage 3: the cheapest mix that carries the workload."""
