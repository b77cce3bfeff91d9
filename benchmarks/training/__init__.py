"""What moves weights: the training loop, its steps, batches, memory, processes and clean stops."""
