"""Kubernetes, by itself and with what serves models on it: objects, checked against the schemas of their kinds."""
