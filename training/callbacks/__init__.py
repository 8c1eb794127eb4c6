"""What is watched and shown while training: logged metrics, finite losses, plots."""
