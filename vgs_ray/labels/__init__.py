"""Labels: `outcomes` for the VGS loss (a class for each roll-out), `token_values` for values of tokens (TVM, ORM, PRM)."""
