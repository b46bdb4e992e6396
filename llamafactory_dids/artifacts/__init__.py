"""The files on disk: gradient stores, domain maps, the mixture log, states. No pickle, no model.

Each file is written under another name and then renamed, so a reader never meets half a file. Each folder records the
inputs that made it. A run with other inputs refuses the folder, and shows both values.
"""
