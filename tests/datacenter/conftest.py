"""Fixtures of the embedded datacenter's tests; the asserts of the replay explain themselves like a test's."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.datacenter.replay")
