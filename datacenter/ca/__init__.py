"""The certificate authority of a datacenter: keys, roots, leaves, rotation, retirement.

Certificates are made by pure functions; the authority writes each change as one transaction.

    authority  certificates  config  endpoints  external_root  keys  leaves  retirement  trust
"""
