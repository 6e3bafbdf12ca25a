"""What waits for a task while no worker does."""
