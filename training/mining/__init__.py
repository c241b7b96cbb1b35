"""Mining over a whole set of embeddings: hard negatives of every item, and items worth a label."""
