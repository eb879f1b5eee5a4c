"""The data plane in several processes, fed by messages from the control process.

A worker asks nothing of Consul and keeps no settings of its own.

    channel  endpoints  link  listeners  messages  pool  process  publisher  reports  supervisor
    worker
"""
