"""Who we are and whom we trust: identities, roots, leaves, and the proof that they fit. No effects.

    spiffe                          trust domain, SPIFFE ID, the form of a service's identity
    rejection                       why a certificate, a bundle or a peer is refused
    identity                        which service of which datacenter a certificate names
    bundle  leaf                    the roots; a leaf with its intermediates and key
    error_queue                     what OpenSSL keeps of a failure, forgotten
    chain  renewal                  does it reach the roots; when to ask for the next
    peer                            who is at the other end of a handshake
    credentials  contexts           leaf and roots proven to fit; what TLS is made of

What stands lower imports what stands higher, never the other way round.
"""
