"""One OpenSSL in the process, not two.

cryptography's wheel brings the OpenSSL of the data path. The interpreter is linked to the system's, which
comes in with the modules `ssl` and `_hashlib` whether or not anybody uses it: five megabytes in every agent.
trio imports the one, hashlib the other. So `ssl` is loaded at the first use of something in it (an agent of
Consul reached by https), and hashlib falls back to the interpreter's own implementations, as it does wherever
it was built without OpenSSL.
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
    """Let the OpenSSL of the data path read our `openssl.cnf`, unless OPENSSL_CONF names another file.

    pyOpenSSL has no call for what stands there. `environ` must be the process's own, for OpenSSL looks there;
    it is as before when this returns, so that neither the second OpenSSL nor a child reads that file.
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
    """Call before anything else is imported; whatever is loaded already stays as it is."""
    if "hashlib" not in sys.modules:
        sys.modules["_hashlib"] = None  # type: ignore[assignment] # the import system's word for "there is none"
    if _SECOND not in sys.modules:
        sys.modules[_SECOND] = _deferred()


def _deferred() -> ModuleType:
    """A module that becomes `ssl` when asked for anything (PEP 562).

    importlib's LazyLoader would do, were it not that the interpreter's own look at `__spec__`, when a module
    is imported for a second time, counts as a use.
    """
    stand_in = ModuleType(_SECOND)

    def load(name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_SECOND) is stand_in:
            del sys.modules[_SECOND]
        stand_in.__dict__.update(importlib.import_module(_SECOND).__dict__)
        return stand_in.__dict__[name]

    stand_in.__dict__["__getattr__"] = load
    return stand_in
