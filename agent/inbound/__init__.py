"""The inbound room."""
