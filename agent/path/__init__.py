"""Walks the path from our app to an upstream's, with a leaf in hand, and notes each station.

    stream  walk

It belongs to commands: a running agent walks no such path by itself.
"""
