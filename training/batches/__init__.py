"""Samplers, augmentation and batches ready for a step."""
