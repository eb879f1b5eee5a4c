"""The page at `/` of the admin endpoint, and what it reads beside `/status`.

    routes  samples

`page.html` is one static file that asks this agent alone; `reasons.json` has the meaning of every reason.
Both are read from the disk when they are asked for, and take no memory of an agent at rest.
"""
