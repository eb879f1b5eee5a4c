"""The intentions room."""
