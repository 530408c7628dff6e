"""The passes through the network: what a method may ask of a step, and `.grad` filled as it decides."""
