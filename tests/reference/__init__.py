"""Slow, obvious re-implementations to check the package against: loops over plain numbers, nothing shared
with it."""
