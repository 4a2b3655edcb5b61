"""What keeps it safe over the years: backups with their database, restore drills, maintenance."""
