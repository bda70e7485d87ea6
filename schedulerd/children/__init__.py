"""The former place of `actions/programs`: a daemon of an older package that still runs starts them by these names."""
