"""Gaussians and cameras as data: formats and orbits."""
