"""Parts that several losses share: masks, distances, margins, episodes, clusters."""
