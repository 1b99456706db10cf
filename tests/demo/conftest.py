"""Fixtures of the demo's tests."""

from __future__ import annotations

from tests.clients.conftest import node as node
