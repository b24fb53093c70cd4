"""Who looks at the renders: no model, a local one, or a server."""
