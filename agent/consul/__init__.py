"""The consul room."""
