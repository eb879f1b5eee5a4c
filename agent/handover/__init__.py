"""What one process of the service leaves to the next: the newest values, or in an upgrade the whole service.

It holds a private key: in memory only, sealed, with the service manager; on disk only encrypted.

    keep  memory  predecessor  resume  sealed_file  state  succession
    upgrade
"""
