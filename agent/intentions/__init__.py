"""Keeps the intentions for our service newest, with the default beside them and their age.

default_policy  keeper
"""
