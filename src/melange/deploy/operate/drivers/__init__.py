"""Ways to act: each starts, drains and stops instances somewhere."""
