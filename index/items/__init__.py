"""Items: ids, labels and metadata as columns, filters, the stored form."""
