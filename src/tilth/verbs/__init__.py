"""Verbs: one public Python function for everything the command line can do.

A verb wires rooms together and holds no science of its own. :mod:`tilth.verbs.registry` lists them by name; the command line
in :mod:`tilth.cli` is made from that list and from each verb's options class.
"""
