"""Plain mechanisms without effects, which every other room may use.

This room imports nothing of ours.

    address  clock  containment  exits  freshness  histogram  incremental  latest  phase  prometheus
    undecodable  unquoted  watch_status
"""
