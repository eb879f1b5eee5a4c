"""Reads every head of a request as a whole: what the reader of lines is held to."""

from __future__ import annotations

from agent.http1.request_reader import RequestReader


class CarefulReader(RequestReader):
    def _usual_headers(self, block: bytes) -> None:
        return None
