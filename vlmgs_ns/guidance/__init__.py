"""What a vision-language model is asked about a scene in training, and what its answer does."""
