"""From a run or an embeddings file to a report or a bundle."""
