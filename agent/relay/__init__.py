"""The relay room."""
