"""The count of a process's connections to a port, on sockets of our own."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

from tests.bench.descriptors import connections_to


def test_connections_to_a_port_count_until_they_are_closed_here() -> None:
    with ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=5)) for _ in range(3)
        ]
        far = [server.accept()[0] for _ in clients]
        assert connections_to(os.getpid(), port) == 3
        for sock in far:
            sock.close()
        assert clients[0].recv(1) == b""
        assert connections_to(os.getpid(), port) == 3  # in CLOSE-WAIT it is a descriptor still
        clients[0].close()
        assert connections_to(os.getpid(), port) == 2


def test_a_listener_is_no_connection_to_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert connections_to(os.getpid(), server.getsockname()[1]) == 0
