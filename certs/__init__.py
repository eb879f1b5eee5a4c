"""Our identity and our trust: SPIFFE IDs, roots, leaves, and the proof that they fit. No effects.

    spiffe                          trust domain, SPIFFE ID, the form of a service's identity
    rejection                       why a certificate, a bundle or a peer is refused
    identity                        which service of which datacenter a certificate names
    bundle  leaf                    the roots; a leaf with its intermediates and key
    sealed                          bytes encrypted with a secret, under a header that anyone may read
    error_queue                     empties OpenSSL's error queue after a failure
    chain  renewal                  whether a chain reaches the roots; when to ask for the next leaf
    peer                            the identity at the other end of a handshake
    credentials  contexts           leaf and roots proven to fit; the TLS contexts made of them

A module imports only modules above it in this list.
"""
