"""What may leave: the Gate and suppression, on shares."""
