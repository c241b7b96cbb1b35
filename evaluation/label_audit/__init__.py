"""Label audit: items whose label their neighbours contradict, ranked; a list to look at, no verdict."""
