"""The command line and the settings file of `sidecar datacenter`.

All mistakes are reported together.

    options  tokens
"""
