"""The commands of `sidecar` other than `run`.

Each command reads settings, asks, prints, and ends with an exit code of the contract.

    admin_commands  check  console  doctor  doctor_consul  doctor_upstreams  explain  findings
"""
