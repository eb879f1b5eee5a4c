"""The ca room."""
