"""From a phrase to Gaussians: find, connect, clean, box, place, export."""
