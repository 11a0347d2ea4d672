"""One file per strategy; encoders, interface, registry and contract checks beside them."""
