"""Items beside their vectors: columns, filters, stored form."""
