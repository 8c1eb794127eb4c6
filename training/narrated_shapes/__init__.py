"""The generated corpus: videos of moving shapes and their narration."""
