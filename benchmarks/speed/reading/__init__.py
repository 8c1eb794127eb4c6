"""Reading frames: this reader beside others."""
