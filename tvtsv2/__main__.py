"""For launchers that want a module: `accelerate launch --module commands embed …`, `torchrun … --module commands …`."""

import sys

from tvtsv2.main import main

sys.exit(main())
