"""Lines go out here: batches, the queue, and the places that they go to. I/O."""
