"""Other tools' profiles and results of load tests, read and written."""
