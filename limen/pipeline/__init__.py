"""From a run or embeddings to a bundle: the steps that several commands share."""
