"""What PyTorch's compiler is told of a process that trains."""

VARIANTS = 64
"""Of one piece of code that are compiled, each for other shapes. PyTorch's own limit is 8, beyond
which it goes on uncompiled; parts of a batch by sizes of crops by networks are more."""


def prepare() -> None:
    """Let the compiler make that many variants, if it would not make more anyway.

    What it makes gives the same bits each time where this process has asked for that.
    """
    # Loading the compiler takes seconds, which most processes need not wait for.
    import torch._dynamo.config
    import torch._inductor.config

    config = torch._dynamo.config
    config.recompile_limit = max(VARIANTS, config.recompile_limit)
    torch._inductor.config.deterministic = torch.are_deterministic_algorithms_enabled()
