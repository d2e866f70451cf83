"""Worked examples: a backbone, a quantizer, a pass and a target of one's own. Tests run them."""
