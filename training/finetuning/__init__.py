"""Fine-tuning: its data, arguments, models and Trainers."""
