"""Decides whether an identity may call, and whether it may make a request. No effects.

What is not understood denies, with a named reason.

    authorize  deny_list  explain  http_match  http_mode  intention  intentions  narrowing  permissions
    regex  source_intentions  wire
"""
