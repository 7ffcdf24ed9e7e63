"""The behavior of one replica: step time, memory, capacity in closed form, simulation, and the balancing policy."""
