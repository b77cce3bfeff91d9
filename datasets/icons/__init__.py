"""How icon_states is drawn: its words, its states, and one picture."""
