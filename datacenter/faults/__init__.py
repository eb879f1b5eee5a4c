"""Injects faults on purpose: hung watches, cut WANs, corrupt answers.

The switches act before the real endpoints, and are off by default.

    bad_answers  endpoints  injection
"""
