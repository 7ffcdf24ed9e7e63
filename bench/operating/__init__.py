"""Simulation of a week under the controller."""
