"""Where plans go: a file or a folder a target. ``docs/deploy.md`` says how to add one."""
