"""Any model's embeddings of videos and texts: adapters, the cache on disk, files of embeddings made elsewhere."""
