"""What is killed or damaged, and what is left."""
