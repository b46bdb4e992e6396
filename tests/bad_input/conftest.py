"""The integration tests' world and finished run, for the cases."""

from tests.integration.conftest import finished, world

__all__ = ["finished", "world"]
