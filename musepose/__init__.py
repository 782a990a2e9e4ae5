"""MusePose: animate the person in one picture with the movements of a dance video."""
