"""Command lines, files, runs, interrupts, devices: what knows no ticket, no attack and no table."""
