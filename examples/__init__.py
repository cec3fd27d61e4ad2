"""A model, a strategy and data of one's own, as small as they can be; see docs/tutorials/your-own-model.md."""
