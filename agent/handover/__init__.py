"""What one process of the service leaves to the next: the newest values, for an outage meanwhile.

It holds a private key: in memory only, sealed, with the service manager; on disk only encrypted.

    keep  memory  resume  sealed_file  state
"""
