"""Gates, tickets, and their installation on a transformer encoder."""
