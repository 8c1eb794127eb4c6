"""For launchers that want a module: `accelerate launch --module commands embed …`, `torchrun … --module commands …`."""

import sys

from commands.main import main

sys.exit(main())
