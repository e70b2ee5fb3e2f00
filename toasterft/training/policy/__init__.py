"""Learning from the model's own samples: rollouts, rewards, advantages, the clipped loss."""
