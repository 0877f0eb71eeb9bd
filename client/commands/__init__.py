"""The commands of the CLI, split by noun: each parses its words, makes its calls, shows the answer."""
