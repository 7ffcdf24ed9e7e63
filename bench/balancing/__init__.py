"""Servers, proxies and clients for the benchmark of the balancer."""
