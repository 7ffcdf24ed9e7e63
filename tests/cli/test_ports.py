"""Ports that servers listen on unless another is named."""

from __future__ import annotations

import typer

from melange.cli.app import app


def test_no_two_servers_have_the_same_port() -> None:
    """All servers of one machine can be started as they are, the page and the assistants' server included."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined] # it is a group
    ports = {
        name: parameter.default
        for name, command in commands.items()
        for parameter in command.params
        if parameter.name == "port"
    }
    assert set(ports) == {"balance", "serve", "ui", "mcp"}
    assert len(set(ports.values())) == len(ports), ports
