"""Getting data sets: where they come from, downloads that go on, archives unpacked with care."""
