"""Keeps the intentions for our service newest, with the default beside them and their age.

It is the only writer of the policy in the snapshot.

    default_policy  keeper  replica
"""
