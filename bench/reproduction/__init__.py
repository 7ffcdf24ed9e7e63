"""The paper's evaluation run again: its setting, its published figures, ours beside them, and the page that says so."""
