"""The command line `tvtsv2`, and one import for Python: `import tvtsv2` registers every Auto class and pipeline."""

import sys
from pathlib import Path

# The command itself imports models when it needs them, so that help and wrong arguments answer at once. During
# `python -m tvtsv2`, the first argument is still "-m" here.
if Path(sys.argv[0]).stem not in ("tvtsv2", "-m"):
    import modeling_tvtsv2  # noqa: F401
    import processing  # noqa: F401
