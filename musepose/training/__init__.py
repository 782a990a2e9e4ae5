"""Training: data, model, loss, optimizers, checkpoints, validation, the loop of both stages."""
