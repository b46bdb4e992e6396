"""The only package that knows LLaMA-Factory. Its rooms are the phases of a run, and arrows go one way:

    registration, commands, webui → arguments → plan → domains → data → host → settings → strategy → errors

`registration` lists what is rebound. `arguments` makes `Settings` of a YAML file, or refuses it in one line. `plan`
makes what the trainer is given, with the domains that `domains` finds and the rows that `data` reads. `host` holds what
LLaMA-Factory computes itself: losses, sharding, random numbers, checkpoints.
"""
