"""What can be rented and what can be served: accelerators, offers, models."""
