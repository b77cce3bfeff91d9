"""Programs that end in a document or a verdict; nothing imports them."""
