"""The log: one function per event, and how a line reaches standard error or the journal.

This room never holds up a connection, and none of its lines holds a secret.

    classes  connection_log  events  log  next_steps  repeats  watch_events
"""
