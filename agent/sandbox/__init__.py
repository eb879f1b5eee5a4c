"""What the process may do to files, as its own settings need it, whatever the service manager allows.

The rules follow from the settings; the kernel holds them for this process and its workers (Landlock).

    landlock  report  rules
"""
