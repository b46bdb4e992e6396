"""`python -m llamafactory_dids`, which `torchrun -m` needs."""

from .integration.commands.cli import main

if __name__ == "__main__":
    main()
