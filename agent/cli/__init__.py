"""The commands of `sidecar` other than `run`.

Each one reads settings, asks Consul or a running agent, prints, and returns an exit code (agent.base.exits).

    admin_commands  check  commands  connect  console  consul_flags  doctor  doctor_consul  doctor_upstreams
    explain  findings  instances  ping
"""
