"""Says how an agent is, problems first.

It has no effects: the values are handed in, and any process may make the same texts of them.

    headline  stations  summary
"""
