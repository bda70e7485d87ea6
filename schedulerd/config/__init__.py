"""The configuration: YAML files, the tables of settings, and the checked values they become."""
