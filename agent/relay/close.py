"""How a connected socket is closed: in order, by a reset, or without TLS's close_notify."""

from __future__ import annotations

import socket
import struct

from agent.relay.splice import Ending

_LINGER_NOTHING = struct.pack("ii", 1, 0)


_LAST_BYTES = 64 * 1024


def reset(sock: socket.socket) -> None:
    """Close with a TCP reset, so that the peer cannot take the end for an orderly one.

    A unix socket has no reset: its reader sees an end of stream.
    """
    if sock.fileno() != -1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        sock.close()


def close_without_notify(sock: socket.socket) -> None:
    """Close a TLS leg without close_notify, so that the bytes written last still arrive.

    Closing a socket with unread bytes resets the connection, and a reset overtakes what was sent before it.
    """
    try:
        sock.shutdown(socket.SHUT_WR)
        sock.recv(_LAST_BYTES)
    except OSError:  # the peer has left already, or has sent nothing more
        pass
    finally:
        sock.close()


def close_both(plain: socket.socket | None, tls: socket.socket | None, ending: Ending | None) -> None:
    """Close both legs according to how the relay ended; `ending` None: it was cancelled, or never began.

    A disorderly end is passed on as one: the plain leg is reset, and the TLS leg is closed without
    close_notify, which the sidecar there takes for truncation, so that it resets its own plain leg.
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
    """Return whether the peer takes nothing more: it reset a TCP leg, or closed its end of a unix socket.

    A TCP peer that has closed its end in order cannot be distinguished from one that only has no more to
    send.
    """
    try:
        sock.send(b"")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return False
