"""What ``python -m stnlib`` and ``torchrun -m stnlib`` run: the command `stnlib`."""

from .cli import main

if __name__ == "__main__":
    main()
