"""What one replica does: step time, memory, capacity in closed form, simulation, and the balancing policy."""
