"""Fixtures that more than one test file needs."""

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A fresh, empty Redis."""
    server = RedisServer()
    try:
        yield server.start()
    finally:
        server.close()
