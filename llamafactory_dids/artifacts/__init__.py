"""What is written to disk: gradient stores, domain maps, the mixture log, states. No pickle, no model.

Every file is written beside its place and renamed, so that a reader never meets half of one. Every
folder carries what made it, and is refused, with both values shown, where that does not match.
"""
