"""Backends that answer guidance questions: residuals without a model, a local model, or a server."""
