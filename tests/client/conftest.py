"""A client of a scripted server, which waits without taking time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
import typer.main

from client import app
from client.api import Client
from client.connection import Connection, Running
from tests.client.scripted import Scripted


@pytest.fixture(autouse=True, scope="session")
def _one_tree_of_commands() -> Iterator[None]:
    """Made once: that takes longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "make_app", cache(app.make_app))
        patch.setattr(typer.main, "get_command", cache(typer.main.get_command))
        yield


@pytest.fixture
def server() -> Iterator[Scripted]:
    made = Scripted()
    yield made
    made.stop()


@pytest.fixture
def waits() -> list[float]:
    """The seconds that the client of this test has waited, without having done so."""
    return []


@pytest.fixture
def client(server, waits) -> Iterator[Client]:
    with Client(Connection(Running(server.address)), sleep=waits.append, clock=lambda: sum(waits)) as made:
        yield made
