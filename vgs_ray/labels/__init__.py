"""Labels: `outcomes` for the VGS loss (a class for each roll-out), `token_values` for TVM (a value for each token)."""
