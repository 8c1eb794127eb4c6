"""Pre-training and fine-tuning: data, masks, losses, parameter rules, Trainer, scripts."""
