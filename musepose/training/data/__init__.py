"""Training data: manifest, data set, latents cache, preparation of videos."""
