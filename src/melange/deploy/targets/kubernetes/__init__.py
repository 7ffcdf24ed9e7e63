"""Kubernetes, alone or with model-serving systems: objects, checked against the schemas of their kinds."""
