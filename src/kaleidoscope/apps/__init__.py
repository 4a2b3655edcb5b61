"""The programs: thin compositions of the rooms, the command line and the supervisor."""
