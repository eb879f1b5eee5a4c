"""The outbound room."""
