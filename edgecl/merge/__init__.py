"""F5: updates merged into a better model. Pure: a base and what devices learned in, masks and weights out (docs/adr/0010)."""
