"""The live connections, the records of ended ones, and the reauthorizer.

The reauthorizer closes connections that the newest values no longer allow.

    calls  connection  failing  ledger  reauthorize  records  tracing
"""
