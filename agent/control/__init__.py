"""Keeps the values that the data plane reads newest and proven.

This room asks Consul, and never sees a caller's socket.

    bootstrap  churn  clock_skew  credentials  credentials_report  deny_file  endpoints
    own_addresses  plane  root_catchup  self_registration  watches
"""
