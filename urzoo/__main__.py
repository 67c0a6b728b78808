"""`python -m urzoo`, which `accelerate launch -m urzoo` needs."""

import sys

from urzoo.cli import main

if __name__ == "__main__":
    sys.exit(main())
