#!/usr/bin/python3 -SE
"""The app as CGI sees it (RFC 3875): Apache and lighttpd."""
import json
import os

line = {
    "method": os.environ["REQUEST_METHOD"],
    "path": os.environ.get("PATH_INFO", ""),
    "role": [os.environ[key] for key in ("HTTP_X_ROLE",) if key in os.environ],
    "identity": [os.environ[key] for key in ("HTTP_X_FORWARDED_CLIENT_CERT",) if key in os.environ],
    "attempt": os.environ.get("HTTP_X_ATTEMPT", ""),
}
log = os.open(os.environ["HOSTILE_LOG"], os.O_WRONLY | os.O_APPEND)
os.write(log, json.dumps(line).encode() + b"\n")
os.write(1, b"Status: 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
