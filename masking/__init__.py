"""Gates and tickets, and how to install them in a transformer encoder."""
