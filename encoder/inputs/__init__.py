"""Input kinds: how a raw image, row of numbers or text becomes the array that a network takes."""
