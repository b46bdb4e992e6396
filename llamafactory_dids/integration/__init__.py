"""The only package that knows LLaMA-Factory. Its rooms are the phases of a run, and imports go one way:

    registration, commands, webui → arguments → plan → domains → data → host → settings → strategy → errors

`registration` lists the rebindings. `arguments` turns a YAML file into `Settings`, or refuses it in one line. `plan`
makes the trainer's input, from the domains of `domains` and the rows of `data`. `host` has what LLaMA-Factory computes
itself: losses, sharding, random numbers, checkpoints.
"""
