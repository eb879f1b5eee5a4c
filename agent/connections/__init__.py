"""Every live connection, the record of how it ended, and its right to live on.

The reauthorizer closes what the newest values no longer allow.

    connection  ledger  reauthorize  records
"""
