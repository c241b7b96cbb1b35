"""The engines that are compared, one file each; ``registry.py`` names them."""
