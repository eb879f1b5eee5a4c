"""Keeps a second OpenSSL out of the process.

cryptography's wheel brings the OpenSSL of the data path. The interpreter is linked to the system's OpenSSL,
which the modules `ssl` and `_hashlib` load even when it is never used: five megabytes in every agent. trio
imports `ssl`, hashlib imports `_hashlib`. So `ssl` is loaded at the first use of a name in it (a Consul agent
reached by https), and hashlib falls back to the interpreter's own implementations, as it does wherever Python
was built without OpenSSL.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType

_SECOND = "ssl"
_CONF = "OPENSSL_CONF"


def configure_the_first(environ: MutableMapping[str, str]) -> None:
    """Make the OpenSSL of the data path read our `openssl.cnf`, unless OPENSSL_CONF names another file.

    pyOpenSSL has no call for the setting in that file. `environ` must be the process's own, since OpenSSL
    reads it there; it is restored before this returns, so that neither the second OpenSSL nor a child reads
    the file.
    """
    if _CONF in environ:
        return
    environ[_CONF] = str(Path(__file__).with_name("openssl.cnf"))
    try:
        from OpenSSL import SSL  # noqa: PLC0415 - importing it is what reads the file

        SSL.Context(SSL.TLS_METHOD)
    finally:
        del environ[_CONF]


def defer_the_second() -> None:
    """Defer the system's OpenSSL. Call before any other import; modules that are loaded stay as they are."""
    if "hashlib" not in sys.modules:
        sys.modules["_hashlib"] = None  # type: ignore[assignment] # the mark for "no such module"
    if _SECOND not in sys.modules:
        sys.modules[_SECOND] = _deferred()


def _deferred() -> ModuleType:
    """Return a module that becomes `ssl` at the first use of an attribute (PEP 562).

    importlib's LazyLoader does not serve: when a module is imported a second time the interpreter reads its
    `__spec__`, and LazyLoader takes that for a use.
    """
    deferred = ModuleType(_SECOND)

    def load(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_SECOND) is deferred:
            del sys.modules[_SECOND]
        deferred.__dict__.update(importlib.import_module(_SECOND).__dict__)
        return deferred.__dict__[name]

    deferred.__dict__["__getattr__"] = load
    return deferred
