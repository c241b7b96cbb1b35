"""Losses, miner, memory and mixup as one objective."""
