"""What a row of any usual layout holds: pictures, turns, options, accepted answers, tags."""
