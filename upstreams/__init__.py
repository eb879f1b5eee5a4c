"""Whom the workload wants to reach, and where they are. No effects."""
