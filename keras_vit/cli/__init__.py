"""The command keras-vit: one file per subcommand, and what all of them share."""
