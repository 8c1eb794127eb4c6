"""The default corpus: narrated videos of moving shapes, made on the spot."""
