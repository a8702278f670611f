"""What training and search both need from their processes: commands, versions, starts and ends."""
