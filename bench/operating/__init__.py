"""A week under the controller, on paper."""
