"""Tables and figures from records, logs and tickets alone: read, group, write, draw."""
