"""`python -m tvtsv2 embed …`, and for launchers: `accelerate launch --module tvtsv2`, `torchrun … --module tvtsv2`."""

import sys

from tvtsv2.main import main

if __name__ == "__main__":
    sys.exit(main())
