"""Services, checks and the catalog: what is registered, how it is, and how answers look.

Answers have the shapes and the traps of Consul 1.10.

    agent_checks  agent_self  agent_services  catalog  central_defaults  check_definitions  checks
    coordinates  definitions  health  registration  translate  views
"""
