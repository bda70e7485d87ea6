"""The former place of `process/keeper`: a daemon of an older package that still runs starts its next keeper by this name."""
