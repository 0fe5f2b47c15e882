"""What the loss surface looks like: spectrum, sharpness, stability, subspaces, roughness and slices."""

__all__: list[str] = []
