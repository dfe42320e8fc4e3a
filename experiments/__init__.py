"""What each table is made of, and the runs that fill it."""
