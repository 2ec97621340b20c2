"""What was built: manifest, digests, store, signature."""
