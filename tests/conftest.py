"""How many examples are tried: enough to fail in `make test`, always the same; many, and other ones, in `make soak`."""

from hypothesis import settings

# No deadline: how long an example takes depends on who else uses the machine.
settings.register_profile("once", max_examples=40, deadline=None, derandomize=True)
settings.register_profile("long", max_examples=1000, deadline=None)
settings.load_profile("once")
