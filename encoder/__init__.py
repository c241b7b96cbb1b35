"""Raw input to unit vector at serving time, without torch."""
