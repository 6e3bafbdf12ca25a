"""Where bytes live: one module for each kind of datastore, all with the same calls."""
