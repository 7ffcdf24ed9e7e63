"""One service: what people write, checked, and the use cases on it."""
