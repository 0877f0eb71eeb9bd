"""The write test: many writers fill one dataset, each block once, and anybody can check what they wrote."""
