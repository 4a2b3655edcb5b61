"""What operation looks at outside the database: disks, and Syncthing."""
