"""Which replica takes this request: the same policies in the simulator and in the live proxy."""
