"""The data plane in several processes, fed by messages from the control process.

A worker does not talk to Consul, and reads no settings of its own.

    channel  endpoints  link  listeners  messages  pool  process  publisher  reports  rows
    supervisor  worker
"""
