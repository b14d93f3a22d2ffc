"""Clips -> tars, records and the manifest that vouches for them."""
