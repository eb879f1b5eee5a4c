"""Plain mechanisms without effects, which every other room may use.

This room imports nothing of ours.

    address  clock  containment  exits  freshness  incremental  latest  phase  prometheus
    undecodable  unquoted  watch_status
"""
