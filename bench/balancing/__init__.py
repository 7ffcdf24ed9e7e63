"""Servers, proxies and clients of the benchmark of the balancer."""
