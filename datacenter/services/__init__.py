"""Services, checks and the catalog: registration, health, and the forms of the answers.

Answers have the shapes and the peculiarities of Consul 1.10.

    agent_checks  agent_self  agent_services  catalog  central_defaults  check_definitions  checks
    coordinates  definitions  health  registration  translate  views
"""
