"""Everything that trains: data, encoders, optimizers, the adversary, the loop around a stage."""
