"""How is it going: heartbeats, status, dead letters, model packs, the database's own care."""
