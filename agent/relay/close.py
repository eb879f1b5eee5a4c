"""How a connected socket is closed: in order, by a reset, or without TLS's close_notify."""

from __future__ import annotations

import socket
import struct

from agent.relay.splice import Ending

_LINGER_NOTHING = struct.pack("ii", 1, 0)


_LAST_BYTES = 64 * 1024


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset, so that nobody takes the end for an orderly one.

    A unix socket has no reset: its reader sees an end of stream.
    """
    if sock.fileno() != -1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        sock.close()


def close_without_notify(sock: socket.socket) -> None:
    """Close a TLS leg without close_notify, so that what was written to it last still arrives.

    Closing on unread bytes would reset the connection, and a reset overtakes what went before it.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_LAST_BYTES)
    except OSError:  # it has left already, or has sent nothing more: either way there is nobody to tell
        pass
    finally:
        sock.close()


def close_both(plain: socket.socket | None, tls: socket.socket | None, ending: Ending | None) -> None:
    """Close both legs as the relay ended; None: it was cancelled, or never began.

    An end that was not orderly is passed on as one. The plain leg is reset; the TLS leg goes without its
    close_notify, which the sidecar there takes for truncation, and resets its own plain leg.
    """
    if plain is not None:
        if ending is Ending.CLEAN:
            plain.close()
        else:
            reset(plain)
    if tls is not None:
        if ending is Ending.CLEAN:
            tls.close()
        elif ending is Ending.PLAIN_RESET:
            close_without_notify(tls)
        else:
            reset(tls)


def has_left(sock: socket.socket) -> bool:
    """Whether the other end takes nothing more: a TCP leg was reset, a unix socket's other end is closed.

    A TCP leg that ended in order cannot be told from one that only has no more to say.
    """
    try:
        sock.send(b"")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False
