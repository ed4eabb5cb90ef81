"""Proof: actors that write down what they did, nemeses that kill them, and a verifier that reads it all afterwards."""
