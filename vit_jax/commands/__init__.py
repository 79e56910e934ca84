"""The commands of `vit-jax`, a module each: HELP, `add_arguments(parser)` and `run(arguments)`.

They import nothing heavy before they run, so that help and mistakes are told at once.
"""
