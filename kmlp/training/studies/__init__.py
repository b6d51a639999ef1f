"""Studies: the rows of a paper's table trained alike, beside the paper's figures."""
