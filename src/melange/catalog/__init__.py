"""What can be rented and served: accelerators, offers, models."""
