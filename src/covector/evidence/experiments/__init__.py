"""What experiments share, and the parts of those that do not fit one file; the papers' own modules are one floor up."""
