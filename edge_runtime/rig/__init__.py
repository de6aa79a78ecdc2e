"""Stand-ins for hardware, for tests, demonstrations and benchmarks: no part of the device."""
