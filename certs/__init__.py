"""Who we are and whom we trust: identities, roots, leaves, and the proof that they fit. No effects."""
