"""The paper's evaluation repeated: its setting, its published figures, ours for comparison, and the page about them."""
