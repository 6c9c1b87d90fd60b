"""The services of Reelworks, one package each; a service never imports another."""
