"""Folders that tests read from."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN_FOLDER = ROOT / "tests" / "golden"
SHARED_CLIPS = ROOT.parent / "shared" / "clips"  # real files, only beside some checkouts
SHARED_FAULTS = SHARED_CLIPS.parent / "faults"
