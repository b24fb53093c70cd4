"""Which Gaussians a user means: selecting, growing, cleaning, and the box around them."""
