"""The federation room."""
