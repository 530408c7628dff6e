"""Methods that go around a method, one file each."""
