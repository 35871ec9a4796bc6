"""From files to training batches. No torch here."""
