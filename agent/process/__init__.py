"""What the operating system and the service manager need of a process: readiness, memory, one OpenSSL.

This room knows nothing of connections or of Consul.

    end_deadline  journal  memory  openssl  sink  systemd
"""
