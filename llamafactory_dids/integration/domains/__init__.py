"""From training samples to a domain map: features, k-means, a given map, or the data sets themselves."""
