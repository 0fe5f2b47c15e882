"""Which inputs an output depends on: derivatives with respect to inputs, smoothed, integrated, of several orders."""

__all__: list[str] = []
