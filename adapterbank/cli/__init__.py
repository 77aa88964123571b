"""The command line: parse, call the library, show the answer.

Commands import what they need when they run, so that ``--help`` needs no torch.
"""
